// What the pages share on which images are corrected: the revision's API and thumbnails, the pending corrections and their bar.

import { PendingCorrections } from "./corrections.js";
import { CorrectionsBar } from "./corrections-bar.js";
import { RevisionApi } from "./revision-api.js";
import { Thumbnails } from "./thumbnails.js";
import { buildHash } from "../router.js";

export class CorrectedPage {
  constructor(context, classifierId, revision) {
    this.context = context;
    this.revision = new RevisionApi(context.api, classifierId, revision, context.signal);
    this.thumbnails = new Thumbnails((digests) => this.revision.thumbnails(digests));
    this.pending = new PendingCorrections(`${context.session.namespace}/${context.session.user}/${classifierId}`, localStorage);
    this.bar = new CorrectionsBar({
      api: context.api,
      classifier: context.classifier,
      pending: this.pending,
      announce: context.announce,
      onApplied: (answer) => {
        context.announce(answer.effect);
        context.go(buildHash(["classifiers", classifierId, "training"]));
      },
    });
  }

  /** The judged scores of an image by class, as soon as `acceptScores` was called; undefined where they are not known. */
  judgedScores(image) {
    const scores = this.scoreRows?.get(image);
    return scores && Object.fromEntries(this.scoreClasses.map((name, position) => [name, scores[position]]));
  }

  acceptScores({ classes, images, scores }) {
    this.scoreClasses = classes;
    this.scoreRows = new Map(images.map((image, row) => [image, scores[row]]));
  }

  close() {
    this.bar.close();
    this.thumbnails.close();
  }
}
