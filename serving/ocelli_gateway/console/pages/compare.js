// The page that compares two revisions on the images that both have judged: what got better, what got worse, image by image.

import { fill, h } from "../dom.js";
import { count, percent } from "../format.js";
import { errorNotice, notice } from "../notice.js";
import { CorrectedPage } from "../quality/corrected-page.js";
import { nameOf } from "../quality/numbers.js";
import { panel } from "../quality/panel.js";
import { ImageReview } from "../quality/review.js";
import { chooseRevision, resolveRevision, revisionPicker } from "../quality/revision-picker.js";
import { buildHash } from "../router.js";

export async function show(container, context, classifierId, asked, askedOther) {
  const { classifier } = context;
  const revision = chooseRevision(classifier, asked);
  const other = chooseOther(classifier, revision, askedOther);
  if (other === undefined) {
    fill(container, notice("info", "There is only one revision. After a retrain, the two can be compared here image by image."));
    return undefined;
  }
  const page = new CorrectedPage(context, classifierId, revision);
  const address = (first, second) => buildHash(["classifiers", classifierId, "compare", first, second]);
  const body = h("div", {});
  fill(
    container,
    h(
      "div",
      { class: "quality-top" },
      revisionPicker(classifier, revision, (chosen) => address(chosen, other), { label: "Revision" }),
      revisionPicker(classifier, other, (chosen) => address(revision, chosen), { label: "Compared with" }),
      h("a", { href: address(other, revision) }, "Swap"),
    ),
    body,
    page.bar.element,
  );
  if (revision === other) {
    fill(body, notice("info", "These are the same revision. Choose another one to compare with."));
    return () => page.close();
  }
  let answer;
  try {
    answer = await page.revision.compare(other);
  } catch (error) {
    fill(body, errorNotice(error));
    return () => page.close();
  }
  const lists = ["better", "worse"].map((name) => buildList(page, answer, { name, revision, other }));
  fill(body, summary(answer, revision, other), ...lists.map((list) => list.element));
  return () => {
    lists.forEach((list) => list.review?.close());
    page.close();
  };
}

function chooseOther(classifier, revision, asked) {
  const revisions = classifier.history.map((entry) => entry.revision);
  const wanted = resolveRevision(classifier, asked);
  return revisions.includes(wanted) ? wanted : revisions.find((candidate) => candidate !== revision);
}

function summary(answer, revision, other) {
  const changed = `${count(answer.better_count, "image")} got better, ${count(answer.worse_count, "image")} got worse`;
  const only = Object.entries(answer.only_in ?? {})
    .filter(([, images]) => images > 0)
    .map(([name, images]) => `${count(images, "image")} only in ${name}`);
  const lines = [
    h("p", { class: "headline" }, changed),
    h("p", {}, `of ${count(answer.images, "image")} that both revisions have judged${only.length ? ` (${only.join(", ")})` : ""}.`),
  ];
  const accuracies = [revision, other].filter((name) => answer.accuracy?.[name] !== undefined);
  if (accuracies.length > 0) {
    lines.push(
      h("p", {}, `Accuracy on these images, with the classes that they have in ${revision}:`),
      h(
        "ul",
        {},
        accuracies.map((name) => h("li", {}, `${name}: ${percent(answer.accuracy[name])} accurate`)),
      ),
    );
  }
  return h("div", { class: "quality-headline" }, lines);
}

function buildList(page, answer, { name, revision, other }) {
  const items = answer[name] ?? [];
  const total = answer[`${name}_count`];
  const title =
    name === "better" ? `Better: right in ${revision}, wrong in ${other}` : `Worse: wrong in ${revision}, right in ${other}`;
  if (items.length === 0) {
    return { element: panel(title, h("p", {}, "No image.")) };
  }
  const review = new ImageReview({
    page,
    label: title,
    caption,
    prefix: `${name}_`,
  });
  review.add(
    items.map((item) => ({
      ...item,
      predictions: [
        { revision, predicted: item.predicted[revision], right: name === "better" },
        { revision: other, predicted: item.predicted[other], right: name !== "better" },
      ],
      facts: [revision, other].map((entry) => [`Predicted by ${entry}`, nameOf(item.predicted[entry])]),
    })),
  );
  const limit = total > items.length ? h("p", { class: "hint" }, `The first ${items.length} of ${total}.`) : null;
  return { review, element: panel(title, limit, review.element) };
}

function caption(item) {
  return [
    h("span", { class: "actual" }, nameOf(item.actual)),
    item.predictions.map(({ revision, predicted, right }) =>
      h(
        "span",
        { class: right ? "predicted right" : "predicted wrong" },
        h("span", { class: "hidden-text" }, `predicted ${right ? "right" : "wrong"} in `),
        h("span", { class: "remark" }, revision),
        right ? " ✓ " : " ✗ ",
        nameOf(predicted),
      ),
    ),
  ];
}
