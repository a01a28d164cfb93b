// The page of a revision's quality: its numbers, the images behind each number, and their correction.

import { fill, h } from "../dom.js";
import { count } from "../format.js";
import { errorNotice, notice } from "../notice.js";
import { CorrectedPage } from "../quality/corrected-page.js";
import { FindingTabs } from "../quality/finding-tabs.js";
import { JudgedImages } from "../quality/judged-images.js";
import { confusion, headline } from "../quality/numbers.js";
import { panel } from "../quality/panel.js";
import { chooseRevision, revisionPicker } from "../quality/revision-picker.js";
import { chooseThreshold } from "../quality/threshold.js";
import { ThresholdTable } from "../quality/threshold-table.js";
import { buildHash } from "../router.js";

export async function show(container, context, classifierId, asked) {
  const { classifier, query } = context;
  const revision = chooseRevision(classifier, asked);
  if (revision === undefined) {
    fill(container, notice("info", "No training has finished yet, so there is no quality to show. The page “Training” shows how far it is."));
    return undefined;
  }
  const page = new CorrectedPage(context, classifierId, revision);
  const body = h("div", {});
  const address = (chosen) => buildHash(["classifiers", classifierId, "quality", chosen]);
  fill(
    container,
    h("div", { class: "quality-top" }, revisionPicker(classifier, revision, address), compareLink(classifier, revision)),
    body,
    page.bar.element,
  );
  let evaluation;
  try {
    evaluation = await page.revision.evaluation();
  } catch (error) {
    fill(body, errorNotice(error));
    return () => page.close();
  }
  const images = new JudgedImages(page, evaluation);
  const found = h("div", {}, h("p", { class: "hint" }, "Reading the data report…"));
  let tabs;
  const table = new ThresholdTable({
    evaluation,
    threshold: chooseThreshold(query, classifier),
    onChange: (threshold) => context.setQuery({ threshold }),
  });
  fill(
    body,
    headline(evaluation),
    panel("Classes", table.element),
    panel("Confusion matrix", confusion(evaluation, (actual, predicted) => images.cell(actual, predicted))),
    panel("Images to look at", found),
    images.element,
  );
  // Not awaited: the page is useful before.
  images.start();
  page.revision.scores().then(
    (scores) => {
      page.acceptScores(scores);
      table.accept(scores);
    },
    (error) => context.signal.aborted || table.refuse(error.message),
  );
  page.revision.data().then(
    (report) => {
      if (!context.signal.aborted) {
        tabs = new FindingTabs(page, report);
        fill(found, tabs.element);
      }
    },
    (error) => context.signal.aborted || fill(found, errorNotice(error)),
  );
  return () => {
    tabs?.close();
    images.close();
    page.close();
  };
}

function compareLink(classifier, revision) {
  const others = classifier.history.filter((entry) => entry.revision !== revision);
  if (others.length === 0) {
    return null;
  }
  const href = buildHash(["classifiers", classifier.classifier_id, "compare", revision, others[0].revision]);
  return h("a", { href }, others.length === 1 ? "Compare with the other revision" : `Compare with ${count(others.length, "other revision")}`);
}
