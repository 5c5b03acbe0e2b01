// Explains an image with one file of `ortcam fuse`, without Python, and writes where the model looked.
//
//   ortcam fuse MODEL -m grad-cam --uint8-input -o explainer.onnx     (once, where ortcam is installed)
//   ./explain explainer.onnx photo.jpg map.png [maps.f32]
//
// Prints each class that is explained with its probability, or its value where the model gives no probabilities, or the
// score. Writes the map of the first class as a grey PNG, white where it is highest, over the crop that the model sees;
// where asked, all maps as raw float32 [K,H,W]. libjpeg-turbo decodes JPEG, as in Python, and stb_image all other
// formats. The orientation in the EXIF data of a JPEG is applied.

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <onnxruntime_cxx_api.h>
#include <stb_image.h>
#include <stb_image_write.h>
#include <turbojpeg.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {  // RGB, uint8 [height,width,3]
  int64_t height, width;
  std::vector<uint8_t> pixels;
};

// The tag Orientation in the EXIF data of a JPEG, 1 to 8; 1, upright, where there is none or another number.
int orientation(const std::string& jpeg) {
  const size_t exif = jpeg.substr(0, 65536).find(std::string("Exif\0\0", 6));
  if (exif == std::string::npos) return 1;
  const std::string tiff = jpeg.substr(exif + 6, 65536);
  const auto number = [&](size_t at, size_t bytes) {
    size_t value = 0;
    for (size_t i = 0; i < bytes && at <= tiff.size() && bytes <= tiff.size() - at; i++)
      value |= size_t(uint8_t(tiff[at + i])) << 8 * (tiff[0] == 'I' ? i : bytes - 1 - i);
    return value;
  };
  const size_t directory = number(4, 4), entries = number(directory, 2);
  for (size_t at = directory + 2; at < directory + 2 + 12 * entries; at += 12)
    if (number(at, 2) == 0x0112) {
      const int how = int(number(at + 8, number(at + 2, 2) == 4 ? 4 : 2));  // a long, or a short
      return how >= 1 && how <= 8 ? how : 1;
    }
  return 1;
}

Image upright(Image image, int how) {
  const bool turned = how >= 5, rows = how == 3 || how == 4 || how == 6 || how == 7;
  const bool columns = how == 2 || how == 3 || how == 7 || how == 8;
  Image out{turned ? image.width : image.height, turned ? image.height : image.width, image.pixels};
  for (int64_t y = 0; y < out.height; y++)
    for (int64_t x = 0; x < out.width; x++) {
      const int64_t down = turned ? x : y, across = turned ? y : x;
      const int64_t row = rows ? image.height - 1 - down : down, column = columns ? image.width - 1 - across : across;
      const int64_t from = row * image.width + column;
      std::copy_n(&image.pixels[3 * from], 3, &out.pixels[3 * (y * out.width + x)]);
    }
  return out;
}

Image read_image(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  if (stream.peek() == EOF) throw std::runtime_error(path.string() + ": cannot be read");  // a folder, too
  const std::string file{std::istreambuf_iterator<char>(stream), {}};
  const auto* bytes = reinterpret_cast<const uint8_t*>(file.data());
  int width = 0, height = 0, sampling, colours = 0;
  if (file.compare(0, 2, "\xff\xd8") != 0) {
    uint8_t* pixels = stbi_load_from_memory(bytes, int(file.size()), &width, &height, nullptr, 3);
    if (!pixels) throw std::runtime_error(path.string() + ": is no image: " + stbi_failure_reason());
    Image image{height, width, {pixels, pixels + size_t(3) * height * width}};
    stbi_image_free(pixels);
    return image;
  }
  const auto jpeg = tjInitDecompress();
  Image image{};
  bool whole = tjDecompressHeader3(jpeg, bytes, file.size(), &width, &height, &sampling, &colours) == 0;
  if (whole && (width < 1 || height < 1))  // a success of libjpeg-turbo where the file ends early
    throw std::runtime_error(path.string() + ": cannot be decoded: it ends before its pixels begin");
  if (whole && uint64_t(width) * height > PTRDIFF_MAX / 4)  // on 32 bits
    throw std::runtime_error(path.string() + ": is too large for this processor");
  const bool inks = colours == TJCS_CMYK || colours == TJCS_YCCK;
  if (whole) {
    image = {height, width, std::vector<uint8_t>(size_t(inks ? 4 : 3) * height * width)};
    const int format = inks ? TJPF_CMYK : TJPF_RGB;
    whole = tjDecompress2(jpeg, bytes, file.size(), image.pixels.data(), width, 0, height, format, 0) == 0;
    const size_t samples = size_t(3) * height * width;
    for (size_t i = 0; inks && i < samples; i++) {  // RGB in place, as OpenCV makes it of inverted inks
      const int ink = image.pixels[i / 3 * 4 + i % 3], black = image.pixels[i / 3 * 4 + 3];
      image.pixels[i] = uint8_t(black - ((255 - ink) * black >> 8));
    }
    image.pixels.resize(samples);
  }
  const std::string reason = whole ? "" : tjGetErrorStr2(jpeg);
  tjDestroy(jpeg);
  if (!whole) throw std::runtime_error(path.string() + ": cannot be decoded: " + reason);
  return upright(std::move(image), orientation(file));
}

// The texts of a JSON list of texts. Escapes of characters beyond ASCII stay as they are.
std::vector<std::string> texts(const std::string& json) {
  std::vector<std::string> found;
  bool inside = false;
  for (size_t i = 0; i < json.size(); i++)
    if (json[i] == '"') {
      if ((inside = !inside)) found.emplace_back();
    } else if (inside) {
      found.back() += json[i] == '\\' && json[i + 1] != 'u' ? json[++i] : json[i];
    }
  return found;
}

// What the model says of each class: probabilities, or the values as they are.
std::vector<double> probabilities(const float* logits, size_t count, const std::string& activation) {
  std::vector<double> values(logits, logits + count);
  if (activation == "identity") return values;
  const double highest = *std::max_element(values.begin(), values.end());
  double sum = 0;
  for (double& value : values) sum += value = std::exp(activation == "sigmoid" ? -value : value - highest);
  for (double& value : values) value = activation == "sigmoid" ? 1 / (1 + value) : value / sum;
  return values;
}

void explain(int count, char** arguments) {
  if (count < 4 || count > 5) throw std::runtime_error("accepted is: explain EXPLAINER.onnx IMAGE MAP.png [MAPS.f32]");
  const Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "explain");
  Ort::Session session(environment, std::filesystem::path(arguments[1]).c_str(), Ort::SessionOptions());
  Ort::AllocatorWithDefaultOptions allocator;
  const auto metadata = session.GetModelMetadata();
  const auto told = [&](const char* key) {
    const auto value = metadata.LookupCustomMetadataMapAllocated(key, allocator);
    return std::string(value ? value.get() : "");
  };
  const std::string file = arguments[1], taken = told("ortcam.input");
  if (taken.rfind("float32 samples", 0) == 0)
    throw std::runtime_error(file + ": takes " + taken + "; this example reads images of 8 bits");
  if (taken.rfind("uint8", 0) != 0)
    throw std::runtime_error(file + ": takes no images; `ortcam fuse --uint8-input` makes one");
  if (told("ortcam.targets") == "input")
    throw std::runtime_error(file + ": takes classes as an input, too; fuse without --runtime-targets");

  Image image = read_image(arguments[2]);
  const int64_t shape[] = {image.height, image.width, 3};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtDeviceAllocator, OrtMemTypeCPU);
  const auto input = Ort::Value::CreateTensor<uint8_t>(memory, image.pixels.data(), image.pixels.size(), shape, 3);
  const bool scored = told("ortcam.targets") == "score";
  const char *inputs[] = {"image"}, *outputs[] = {"logits", "targets", "saliency", "score"};
  const auto found = session.Run({}, inputs, &input, 1, outputs, scored ? 4 : 3);

  const size_t classes = found[0].GetTensorTypeAndShapeInfo().GetElementCount();
  const std::string activation = told("ortcam.activation");
  const auto values = probabilities(found[0].GetTensorData<float>(), classes, activation);
  const auto labels = texts(told("ortcam.labels"));
  const auto sizes = found[2].GetTensorTypeAndShapeInfo().GetShape();  // K, H, W
  for (int64_t k = 0; k < sizes[0] && !scored; k++) {
    const size_t target = found[1].GetTensorData<int64_t>()[k];
    const std::string label = target < labels.size() ? labels[target] : "class";
    if (activation == "identity") std::printf("%s (output %zu): %.4g\n", label.c_str(), target, values[target]);
    else std::printf("%s (class %zu): %.1f %%\n", label.c_str(), target, 100 * values[target]);
  }
  if (scored) std::printf("%s: %.4g\n", told("ortcam.score").c_str(), *found[3].GetTensorData<float>());

  const float* saliency = found[2].GetTensorData<float>();
  std::vector<uint8_t> levels(sizes[1] * sizes[2]);
  for (size_t i = 0; i < levels.size(); i++) levels[i] = uint8_t(std::lround(255 * saliency[i]));
  if (!stbi_write_png(arguments[3], int(sizes[2]), int(sizes[1]), 1, levels.data(), int(sizes[2])))
    throw std::runtime_error(std::string(arguments[3]) + ": cannot be written");
  if (count == 5 && !std::ofstream(arguments[4], std::ios::binary)
                         .write(reinterpret_cast<const char*>(saliency), sizes[0] * levels.size() * sizeof(float)))
    throw std::runtime_error(std::string(arguments[4]) + ": cannot be written");
}

int main(int count, char** arguments) {
  try {
    explain(count, arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "explain: %s\n", error.what());
    return 2;
  }
}
