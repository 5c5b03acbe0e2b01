"""The runtime on other architectures and on what Debian ships: `make edge-arm`, `make edge-cpp`, `make edge-csharp`."""
