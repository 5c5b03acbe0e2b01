"""The example in C#, built with .NET from npm: `make edge-csharp`."""
