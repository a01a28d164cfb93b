// Asks v3 to classify one image. The scores keep the digits that the service sent.

import { parseExact } from "./exact-numbers.js";

/** A refusal that is part of an answer with the status 200. */
class NoScoresError extends Error {}

/**
 * The answer of v3 for one image: a `file` (Blob) or a `url`; its numbers are ExactNumbers. Scores are asked for from `threshold` on.
 * Raises the errors of api.js.
 */
export async function askClassify(api, { file, url, classifierIds, threshold = 0, signal }) {
  const form = new FormData();
  form.set("classifier_ids", classifierIds.join(","));
  form.set("threshold", String(threshold));
  if (file) {
    form.set("images_file", file, file.name ?? "image.jpg");
  } else {
    form.set("url", url);
  }
  const response = await api.request("POST", "/v3/classify", { body: form, signal });
  return parseExact(await response.text());
}

/** All scores of one classifier for a file: [{class, score}]. Raises NoScoresError, and the errors of api.js. */
export async function classifyImage(api, { file, classifierId }) {
  const answer = await askClassify(api, { file, classifierIds: [classifierId] });
  const found = answer.images[0]?.classifiers.find((item) => item.classifier_id === classifierId);
  if (!found) {
    throw new NoScoresError(describeMissing(answer));
  }
  return found.classes;
}

/** Why there are no scores, as the service says it. */
export function describeMissing(answer) {
  const sentences = [answer.images?.[0]?.error?.description, ...(answer.warnings ?? []).map((warning) => warning.description)];
  return sentences.filter(Boolean).join(" ") || "The service returned no scores for this image.";
}
