// The page of the data report: what was read for each class, what was left out and why, and images that a person should look at.
// It is there before a training has finished, and where one has failed or waits.

import { fill, h } from "../dom.js";
import { count, number } from "../format.js";
import { errorNotice, notice } from "../notice.js";
import { CorrectedPage } from "../quality/corrected-page.js";
import { FindingTabs } from "../quality/finding-tabs.js";
import { panel, scrolling } from "../quality/panel.js";
import { resolveRevision, revisionPicker } from "../quality/revision-picker.js";
import { buildHash } from "../router.js";

export async function show(container, context, classifierId, asked) {
  const { classifier } = context;
  const revisions = revisionsOf(classifier);
  const wanted = resolveRevision(classifier, asked);
  const revision = revisions.includes(wanted) ? wanted : revisions[0];
  if (revision === undefined) {
    fill(container, notice("info", "The images have not been read yet."));
    return undefined;
  }
  const page = new CorrectedPage(context, classifierId, revision);
  const body = h("div", {});
  const address = (chosen) => buildHash(["classifiers", classifierId, "data", chosen]);
  fill(container, h("div", { class: "quality-top" }, revisionPicker(classifier, revision, address, { revisions })), body, page.bar.element);
  let report;
  try {
    report = await page.revision.data();
  } catch (error) {
    fill(body, errorNotice(error));
    return () => page.close();
  }
  const tabs = new FindingTabs(page, report);
  fill(
    body,
    explanationOf(classifier),
    faults(report),
    panel("Images", summary(report), scrolling("Images of each class", setsTable(report.sets))),
    panel("Images to look at", tabs.element),
    skippedFiles(report.sets),
  );
  return () => {
    tabs.close();
    page.close();
  };
}

/** The current one first: it is what a failed or suspended training is about. */
function revisionsOf(classifier) {
  const all = [classifier.current_revision, classifier.training_revision, ...classifier.history.map((entry) => entry.revision)];
  return [...new Set(all.filter(Boolean))];
}

function explanationOf(classifier) {
  if (!classifier.explanation || !(classifier.status === "failed" || classifier.suspended)) {
    return null;
  }
  return notice(classifier.status === "failed" ? "bad" : "info", classifier.explanation);
}

/** What the check of a training that waits or failed has found. */
function faults(report) {
  if (!report.faults?.length) {
    return null;
  }
  const more = report.faults_count > report.faults.length ? h("p", {}, `The first ${report.faults.length} of ${report.faults_count}.`) : null;
  return notice("warning", [h("ul", {}, report.faults.map((sentence) => h("li", {}, sentence))), more]);
}

function summary(report) {
  const { relabelled = 0, dropped = 0, unchanged = 0, unknown_count: unknown = 0 } = report.corrections ?? {};
  const applied = [
    relabelled && `${count(relabelled, "image")} moved`,
    dropped && `${count(dropped, "image")} dropped`,
    unchanged && `${count(unchanged, "correction")} changed nothing`,
    unknown && `${count(unknown, "correction")} of images that are not among the examples`,
  ].filter(Boolean);
  const corrections = applied.length > 0 ? ` Corrections: ${applied.join(", ")}.` : "";
  return h("p", {}, `${count(report.images, "image")} can be used.${corrections}`);
}

function setName(set) {
  return set.class ?? "negative examples";
}

function setsTable(sets) {
  const heads = ["Class", "Images", "Left out", "Duplicates"].map((text, column) =>
    h("th", { scope: "col", class: column > 0 ? "number" : undefined }, text),
  );
  const rows = sets.map((set) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, setName(set)),
      h("td", { class: "number" }, number(set.images)),
      h("td", { class: "number" }, number(set.skipped_count)),
      h("td", { class: "number" }, number(set.duplicates_count)),
    ),
  );
  return h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows));
}

function skippedFiles(sets) {
  const skipped = sets.flatMap((set) => (set.skipped ?? []).map((file) => ({ ...file, class: set.class })));
  if (skipped.length === 0) {
    return null;
  }
  const total = sets.reduce((sum, set) => sum + (set.skipped_count ?? 0), 0);
  const limit = total > skipped.length ? ` The first ${skipped.length} of ${total}.` : "";
  const heads = ["File", "Class", "Why"].map((text) => h("th", { scope: "col" }, text));
  const rows = skipped.map((file) => h("tr", {}, [file.name, setName(file), file.reason].map((text) => h("td", {}, text))));
  return panel(
    "Files that were left out",
    h("p", { class: "hint" }, `Repair or replace them, and add them again.${limit}`),
    scrolling("Files that were left out", h("table", {}, h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows))),
  );
}
