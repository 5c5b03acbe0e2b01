/** Where the classifier is split into features and head, and the maps in the features. */
import type { Maps } from "../scoring/upsampling";

/** The entry of bundle.json. */
export interface Cut {
  readonly layout: "nchw" | "nhwc" | "tokens";
  readonly channels: number;
  readonly height: number;
  readonly width: number;
  readonly prefix_tokens: number;
}

/** The shape of the features of one image: [1,C,h,w], [1,h,w,C], or tokens [1,T,C]. */
export function featuresShape({ layout, channels, height, width, prefix_tokens: prefix }: Cut): number[] {
  if (layout === "nchw") return [1, channels, height, width];
  return layout === "nhwc" ? [1, height, width, channels] : [1, prefix + height * width, channels];
}

/** The maps [C,h,w] in the features of one image. */
export function asMaps(features: Float32Array, cut: Cut): Maps {
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
