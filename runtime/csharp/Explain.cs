// Explains an image with one file of `ortcam fuse`, without Python, and writes where the model looked.
//
//   ortcam fuse MODEL -m grad-cam --uint8-input -o explainer.onnx     (once, where ortcam is installed)
//   dotnet run --project runtime/csharp -- explainer.onnx photo.jpg map.png [maps.f32]
//
// Prints each class that is explained with its probability, or its value where the model gives no probabilities, or the
// score. Writes the map of the first class as a grey PNG, white where it is highest, over the crop that the model sees;
// where asked, all maps as raw float32 [K,H,W]. SkiaSharp decodes the image and gives the orientation of a photograph.

using System;
using System.Collections.Generic;
using System.Globalization;
using System.IO;
using System.Linq;
using System.Runtime.InteropServices;
using System.Text.Json;
using Microsoft.ML.OnnxRuntime;
using SkiaSharp;

internal static class Program
{
    private static int Main(string[] arguments)
    {
        CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;  // 99.5 %, not 99,5 %
        try
        {
            Explain(arguments);
            return 0;
        }
        catch (Exception error)
        {
            Console.Error.WriteLine($"explain: {error.Message}");
            return 2;
        }
    }

    private static void Explain(string[] arguments)
    {
        if (arguments.Length < 3 || arguments.Length > 4)
            throw new ArgumentException("accepted is: explain EXPLAINER.onnx IMAGE MAP.png [MAPS.f32]");
        using var session = new InferenceSession(arguments[0]);
        var metadata = session.ModelMetadata.CustomMetadataMap;
        string Told(string key) => metadata.TryGetValue(key, out var value) ? value : "";
        var taken = Told("ortcam.input");
        if (taken.StartsWith("float32 samples", StringComparison.Ordinal))
            throw new ArgumentException($"{arguments[0]}: takes {taken}; this example reads images of 8 bits");
        if (!taken.StartsWith("uint8", StringComparison.Ordinal))
            throw new ArgumentException($"{arguments[0]}: takes no images; `ortcam fuse --uint8-input` makes one");
        if (Told("ortcam.targets") == "input")
            throw new ArgumentException($"{arguments[0]}: takes classes as an input, too; fuse without --runtime-targets");

        var (height, width, pixels) = ReadImage(arguments[1]);
        var scored = Told("ortcam.targets") == "score";
        var outputs = new List<string> { "logits", "targets", "saliency" };
        if (scored) outputs.Add("score");
        using var image = OrtValue.CreateTensorValueFromMemory(pixels, new long[] { height, width, 3 });
        using var options = new RunOptions();
        using var found = session.Run(options, new[] { "image" }, new[] { image }, outputs);

        var saliency = found[2].GetTensorDataAsSpan<float>();  // [K,H,W], row by row
        var sizes = found[2].GetTensorTypeAndShape().Shape;
        if (scored) Console.WriteLine($"{Told("ortcam.score")}: {found[3].GetTensorDataAsSpan<float>()[0]:G4}");
        else PrintClasses(found[0].GetTensorDataAsSpan<float>(), found[1].GetTensorDataAsSpan<long>(), Told);

        var levels = new byte[sizes[1] * sizes[2]];
        for (var i = 0; i < levels.Length; i++) levels[i] = (byte)Math.Round(255 * saliency[i]);
        WriteFile(arguments[2], Png(levels, (int)sizes[2], (int)sizes[1]));
        if (arguments.Length == 4) WriteFile(arguments[3], MemoryMarshal.AsBytes(saliency).ToArray());
    }

    private static void PrintClasses(ReadOnlySpan<float> logits, ReadOnlySpan<long> targets, Func<string, string> told)
    {
        var activation = told("ortcam.activation");
        var json = told("ortcam.labels");
        var labels = json.Length > 0 ? JsonSerializer.Deserialize<string[]>(json)! : new string[0];
        var values = Probabilities(logits.ToArray(), activation);
        foreach (var target in targets)
        {
            var label = target < labels.Length ? labels[target] : "class";
            Console.WriteLine(
                activation == "identity"
                    ? $"{label} (output {target}): {values[target]:G4}"
                    : $"{label} (class {target}): {100 * values[target]:F1} %");
        }
    }

    // What the model says of each class: probabilities, or the values as they are.
    private static double[] Probabilities(float[] logits, string activation)
    {
        if (activation == "identity") return logits.Select(logit => (double)logit).ToArray();
        if (activation == "sigmoid") return logits.Select(logit => 1 / (1 + Math.Exp(-logit))).ToArray();
        var highest = logits.Max();
        var shares = logits.Select(logit => Math.Exp(logit - highest)).ToArray();
        var sum = shares.Sum();
        return shares.Select(share => share / sum).ToArray();
    }

    // RGB, uint8 [height,width,3], turned upright. Colour profiles are not applied, and transparency is dropped.
    private static (int Height, int Width, byte[] Pixels) ReadImage(string path)
    {
        using var file = SKData.CreateCopy(ReadFile(path));
        using var codec = SKCodec.Create(file) ?? throw new InvalidDataException($"{path}: is no image");
        var info = codec.Info.WithColorType(SKColorType.Rgba8888).WithAlphaType(SKAlphaType.Unpremul);
        var result = codec.GetPixels(info, out var stored);
        if (result != SKCodecResult.Success) throw new InvalidDataException($"{path}: cannot be decoded: {result}");

        var how = codec.EncodedOrigin;  // EXIF's numbers, 1 to 8
        var turned = how >= SKEncodedOrigin.LeftTop;
        var rows = "3467".Contains((char)('0' + how));
        var columns = "2378".Contains((char)('0' + how));
        var (height, width) = turned ? (info.Width, info.Height) : (info.Height, info.Width);
        var pixels = new byte[3 * height * width];
        for (var y = 0; y < height; y++)
            for (var x = 0; x < width; x++)
            {
                var (down, across) = turned ? (x, y) : (y, x);
                var row = rows ? info.Height - 1 - down : down;
                var column = columns ? info.Width - 1 - across : across;
                Array.Copy(stored, 4 * (row * info.Width + column), pixels, 3 * (y * width + x), 3);
            }
        return (height, width, pixels);
    }

    private static byte[] Png(byte[] levels, int width, int height)
    {
        using var image = SKImage.FromPixelCopy(new SKImageInfo(width, height, SKColorType.Gray8, SKAlphaType.Opaque), levels);
        using var png = image.Encode(SKEncodedImageFormat.Png, 100);
        return png.ToArray();
    }

    private static byte[] ReadFile(string path)
    {
        try
        {
            return File.ReadAllBytes(path);
        }
        catch (Exception error) when (error is IOException || error is UnauthorizedAccessException)
        {
            throw new IOException($"{path}: cannot be read");
        }
    }

    private static void WriteFile(string path, byte[] content)
    {
        try
        {
            File.WriteAllBytes(path, content);
        }
        catch (Exception error) when (error is IOException || error is UnauthorizedAccessException)
        {
            throw new IOException($"{path}: cannot be written");
        }
    }
}
