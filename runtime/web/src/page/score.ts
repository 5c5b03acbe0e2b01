/** The field of the score: what is explained in place of a class, and the files that it names. */
import type { Opened } from "../messages";
import { wordOf } from "../request/score_text";
import type { AskedScore } from "../request/scores";
import { page } from "./elements";

const added = new Map<string, File>(); // files that scores may name

/** What is explained in place of a class, if anything. */
export function askedScore(): AskedScore {
  return { score: page.score.value.trim() || null, scoreFiles: [...added.values()] };
}

/** The expression that is explained in place of a class; null: a class is. */
export function readExpression(): string | null {
  const { score } = askedScore();
  return score === null || wordOf(score) !== null ? null : score;
}

/** Say what scores of a model may be. Of one without classes there is a score from the beginning. */
export function offerScore({ labels, areProbabilities, score }: Opened): void {
  page.score.value = labels.length > 0 ? "" : score;
  page.score.placeholder = score;
  const words = areProbabilities ? "logit, probability, entropy, or a sum" : "a sum";
  page.scoreHelp.textContent =
    labels.length > 0
      ? `Leave it empty to explain ${areProbabilities ? "a class" : "an output"}. Or enter ${words} such as ${score}.`
      : `Enter which part of the output to explain, such as ${score}.`;
}

/** Offer to add files where a score names one; a server takes none. */
export function offerScoreFiles(opened: Opened | null): void {
  const named = /@|cosine:/i.test(page.score.value) && opened?.provider != null;
  page.addScoreFiles.hidden = !named;
  page.scoreFiles.disabled = !named;
  page.addScoreFiles.textContent = added.size === 0 ? "Add its file" : `Added: ${[...added.keys()].join(", ")}`;
}

/** Take the files that were chosen. */
export function takeScoreFiles(): void {
  for (const file of page.scoreFiles.files ?? []) added.set(file.name, file);
  page.scoreFiles.value = "";
}
