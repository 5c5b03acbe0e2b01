/** What the build puts into the source. */

declare const __WEBGPU__: boolean; // whether the page brings the ONNX Runtime that computes on a GPU
