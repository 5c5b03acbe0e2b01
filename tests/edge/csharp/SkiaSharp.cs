// Stands in for SkiaSharp, which no registry has that the tests reach: the members that runtime/csharp uses, with
// SkiaSharp's names and signatures. Python decodes and encodes (images.py), so that pixels are the runtime's.

using System;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Text;

namespace SkiaSharp
{
    public enum SKColorType { Unknown = 0, Rgba8888 = 4, Gray8 = 9 }

    public enum SKAlphaType { Unknown, Opaque, Premul, Unpremul }

    public enum SKCodecResult { Success, IncompleteInput, ErrorInInput }

    public enum SKEncodedImageFormat { Png = 4 }

    public enum SKEncodedOrigin { TopLeft = 1, TopRight, BottomRight, BottomLeft, LeftTop, RightTop, RightBottom, LeftBottom }

    public struct SKImageInfo
    {
        public SKImageInfo(int width, int height, SKColorType colorType, SKAlphaType alphaType)
        {
            Width = width;
            Height = height;
            ColorType = colorType;
            AlphaType = alphaType;
        }

        public int Width { get; set; }

        public int Height { get; set; }

        public SKColorType ColorType { get; set; }

        public SKAlphaType AlphaType { get; set; }

        public readonly SKImageInfo WithColorType(SKColorType type) => new SKImageInfo(Width, Height, type, AlphaType);

        public readonly SKImageInfo WithAlphaType(SKAlphaType type) => new SKImageInfo(Width, Height, ColorType, type);
    }

    public class SKData : IDisposable
    {
        private readonly byte[] content;

        private SKData(byte[] content) => this.content = content;

        public static SKData CreateCopy(byte[] bytes) => new SKData(bytes.ToArray());

        public byte[] ToArray() => content.ToArray();

        public void Dispose() { }
    }

    public class SKCodec : IDisposable
    {
        private readonly byte[] pixels;

        private SKCodec(SKImageInfo info, SKEncodedOrigin origin, byte[] pixels)
        {
            Info = info;
            EncodedOrigin = origin;
            this.pixels = pixels;
        }

        public SKImageInfo Info { get; }

        public SKEncodedOrigin EncodedOrigin { get; }

        public static SKCodec Create(SKData data)
        {
            var decoded = Python.Run("decode", data.ToArray());
            if (decoded.Length == 0) return null;
            var end = Array.IndexOf(decoded, (byte)'\n');
            var told = Encoding.ASCII.GetString(decoded, 0, end).Split(' ').Select(int.Parse).ToArray();
            var info = new SKImageInfo(told[0], told[1], SKColorType.Unknown, SKAlphaType.Unknown);
            return new SKCodec(info, (SKEncodedOrigin)told[2], decoded.Skip(end + 1).ToArray());
        }

        public SKCodecResult GetPixels(SKImageInfo info, out byte[] pixels)
        {
            if (info.ColorType != SKColorType.Rgba8888 || info.AlphaType != SKAlphaType.Unpremul)
                throw new NotSupportedException("the stand-in decodes to RGBA that is not premultiplied");
            pixels = this.pixels;
            return pixels.Length == 0 ? SKCodecResult.IncompleteInput : SKCodecResult.Success;
        }

        public void Dispose() { }
    }

    public class SKImage : IDisposable
    {
        private readonly byte[] sizesAndPixels;

        private SKImage(byte[] sizesAndPixels) => this.sizesAndPixels = sizesAndPixels;

        public static SKImage FromPixelCopy(SKImageInfo info, byte[] pixels)
        {
            if (info.ColorType != SKColorType.Gray8) throw new NotSupportedException("the stand-in encodes grey");
            return new SKImage(Encoding.ASCII.GetBytes($"{info.Width} {info.Height}\n").Concat(pixels).ToArray());
        }

        public SKData Encode(SKEncodedImageFormat format, int quality) =>
            SKData.CreateCopy(Python.Run("encode", sizesAndPixels));

        public void Dispose() { }
    }

    internal static class Python
    {
        public static byte[] Run(string what, byte[] input)
        {
            var program = Environment.GetEnvironmentVariable("ORTCAM_STAND_IN");  // Python and images.py, in two lines
            var parts = program.Split('\n');
            using var process = Process.Start(new ProcessStartInfo(parts[0])
            {
                ArgumentList = { parts[1], what },
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
            });
            process.StandardInput.BaseStream.Write(input, 0, input.Length);
            process.StandardInput.Close();
            using var output = new MemoryStream();
            process.StandardOutput.BaseStream.CopyTo(output);
            process.WaitForExit();
            if (process.ExitCode != 0) throw new InvalidOperationException("the stand-in's Python failed");
            return output.ToArray();
        }
    }
}
