// What the API says about the quality of one revision of a classifier. It must not know the pages.

const IMAGES_PER_REQUEST = 100;

export class RevisionApi {
  constructor(api, classifierId, revision, signal) {
    this.api = api;
    this.signal = signal;
    this.path = `/ocelli/v1/classifiers/${encodeURIComponent(classifierId)}/revisions/${encodeURIComponent(revision)}`;
  }

  evaluation() {
    return this.get("evaluation");
  }

  scores() {
    return this.get("scores");
  }

  data() {
    return this.get("data");
  }

  compare(other) {
    return this.get(`compare/${encodeURIComponent(other)}`);
  }

  /** `filter`: {actual, predicted, wrong, sort} as in the address; undefined ones are left out. */
  images(filter, offset) {
    return this.get("images", { ...filter, limit: IMAGES_PER_REQUEST, offset });
  }

  async thumbnails(digests) {
    return (await this.get("thumbnails", { image: digests })).thumbnails;
  }

  get(name, query = {}) {
    return this.api.get(`${this.path}/${name}`, query, { signal: this.signal });
  }
}
