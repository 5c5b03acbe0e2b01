/** Where the classifier is split into features and head, and the maps in the features. */
import type { Maps } from "../scoring/upsampling";

/** The entry of bundle.json. */
export interface Cut {
  readonly tensor: string;
  readonly module: string | null;
  readonly layout: "nchw" | "nhwc" | "tokens";
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly prefix_tokens: number;
}

type Layout = Omit<Cut, "tensor" | "module">;

/** What people call the layer: the path of its module, or its tensor where the graph knows no module. */
export function layerName({ module, tensor }: Cut): string {
  return module ?? tensor;
}

/** The shape of the features of one image: [1,C,h,w], [1,h,w,C], or tokens [1,T,C]. */
export function featuresShape({ layout, channels, height, width, prefix_tokens: prefix }: Layout): number[] {
  if (layout === "nchw") return [1, channels, height, width];
  return layout === "nhwc" ? [1, height, width, channels] : [1, prefix + height * width, channels];
}

/** The maps [C,h,w] in the features of one image, or in their gradient. */
export function asMaps(features: Float32Array, cut: Layout): Maps {
  const { channels, height, width } = cut;
  const maps = { count: channels, height, width };
  if (cut.layout === "nchw") return { ...maps, data: features };
  const start = cut.layout === "tokens" ? cut.prefix_tokens * channels : 0;
  const size = height * width;
  const data = new Float32Array(channels * size);
  for (let channel = 0; channel < channels; channel++) {
    for (let place = 0; place < size; place++)
      data[channel * size + place] = features[start + place * channels + channel];
  }
  return { ...maps, data };
}

/** The inverse of `asMaps`: altered maps between the prefix tokens of the features, in the layout of the cut. */
export function fromMaps(maps: Float32Array, features: Float32Array, cut: Layout): Float32Array {
  if (cut.layout === "nchw") return maps;
  const { channels, height, width } = cut;
  const start = cut.layout === "tokens" ? cut.prefix_tokens * channels : 0;
  const size = height * width;
  const out = features.slice();
  for (let channel = 0; channel < channels; channel++) {
    for (let place = 0; place < size; place++) out[start + place * channels + channel] = maps[channel * size + place];
  }
  return out;
}
