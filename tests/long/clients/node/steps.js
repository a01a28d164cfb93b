// The life of a classifier through old Node SDKs of IBM's service: the same steps as ../python/steps.py, see there.
// Run in the folder of a generation, whose node_modules it uses.

'use strict';

const assert = require('assert').strict;
const fs = require('fs');
const { createRequire } = require('module');

const VERSION = '2018-03-19';
const DEADLINE_MILLISECONDS = 300000;

const load = createRequire(`${process.cwd()}/`);

const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// watson-developer-cloud 2: callbacks, the API key in the query, a field for each class, no Core ML.
class Callbacks {
  constructor(options) {
    const Service = load('watson-developer-cloud/visual-recognition/v3');
    this.service = new Service({ url: options.address, api_key: options.apiKey, version_date: VERSION });
  }

  call(method, parameters) {
    return new Promise((resolve, reject) => {
      this.service[method](parameters, (error, result) => (error ? reject(error) : resolve(result)));
    });
  }

  fields(classes) {
    return Object.fromEntries(Object.entries(classes).map(([name, file]) => [`${name}_positive_examples`, file]));
  }

  create(name, classes, negatives) {
    return this.call('createClassifier', { name, negative_examples: negatives, ...this.fields(classes) });
  }

  retrain(id, classes) {
    return this.call('retrainClassifier', { classifier_id: id, ...this.fields(classes) });
  }

  get(id) {
    return this.call('getClassifier', { classifier_id: id });
  }

  list() {
    return this.call('listClassifiers', {});
  }

  classify(parameters) {
    return this.call('classify', parameters);
  }

  delete(id) {
    return this.call('deleteClassifier', { classifier_id: id });
  }
}

// watson-developer-cloud 4 and ibm-watson 4: promises, tokens, classes as an object.
class Promises {
  constructor(options, packageName) {
    const Service = load(`${packageName}/visual-recognition/v3`);
    this.service = new Service({
      url: options.address,
      iam_apikey: options.apiKey,
      iam_url: options.tokenAddress,
      version: VERSION,
    });
  }

  create(name, classes, negatives) {
    return this.service.createClassifier({ name, positive_examples: classes, negative_examples: negatives });
  }

  retrain(id, classes) {
    return this.service.updateClassifier({ classifier_id: id, positive_examples: classes });
  }

  get(id) {
    return this.service.getClassifier({ classifier_id: id });
  }

  list() {
    return this.service.listClassifiers();
  }

  classify(parameters) {
    return this.service.classify(parameters);
  }

  async coreML(id) {
    const chunks = [];
    for await (const chunk of await this.service.getCoreMlModel({ classifier_id: id })) chunks.push(chunk);
    return Buffer.concat(chunks);
  }

  delete(id) {
    return this.service.deleteClassifier({ classifier_id: id });
  }
}

const GENERATIONS = {
  2.42: (options) => new Callbacks(options),
  '4.0': (options) => new Promises(options, 'watson-developer-cloud'),
  4.5: (options) => new Promises(options, 'ibm-watson'),
};

class Life {
  constructor(options) {
    this.options = options;
    this.client = GENERATIONS[options.generation](options);
    this.name = `node ${options.generation}`;
  }

  sample(name) {
    return fs.createReadStream(`${this.options.samples}/${name}`);
  }

  async waitUntilReady() {
    const deadline = Date.now() + DEADLINE_MILLISECONDS;
    for (;;) {
      const found = await this.client.get(this.classifierID);
      if (found.status === 'ready') return found;
      assert.ok(['training', 'retraining'].includes(found.status), JSON.stringify(found));
      assert.ok(Date.now() < deadline, JSON.stringify(found));
      await sleep(300);
    }
  }

  names(classes) {
    return classes.map((item) => item.class).sort();
  }

  classes(result) {
    return this.names(result.images[0].classifiers[0].classes);
  }

  async refusal(call) {
    let result;
    try {
      result = await call();
    } catch (error) {
      return error;
    }
    throw new Error(`it was not refused: ${JSON.stringify(result)}`);
  }

  async create() {
    const classes = { zero: this.sample('zero.zip'), one: this.sample('one.zip') };
    const created = await this.client.create(this.name, classes, this.sample('other-digits.zip'));
    assert.equal(created.status, 'training');
    assert.deepEqual(this.names(created.classes), ['one', 'zero']);
    this.classifierID = created.classifier_id;
  }

  async poll() {
    assert.equal((await this.waitUntilReady()).core_ml_enabled, true);
  }

  async list() {
    const { classifiers } = await this.client.list();
    const own = classifiers.filter((item) => item.classifier_id === this.classifierID);
    assert.deepEqual(own, [{ classifier_id: this.classifierID, name: this.name, status: 'ready' }]);
  }

  async classify_file() {
    const result = await this.client.classify({
      images_file: this.sample('test-one.png'),
      classifier_ids: [this.classifierID],
    });
    assert.deepEqual(this.classes(result), ['one']);
  }

  async classify_threshold() {
    const result = await this.client.classify({
      images_file: this.sample('test-one.png'),
      classifier_ids: [this.classifierID],
      threshold: 0,
    });
    assert.deepEqual(this.classes(result), ['one', 'zero']);
  }

  async classify_zip() {
    const result = await this.client.classify({
      images_file: this.sample('tests.zip'),
      classifier_ids: [this.classifierID, 'default'],
    });
    assert.ok(result.images.length > 1);
    assert.equal(result.images_processed, result.images.length);
    const answered = result.images[0].classifiers.map((item) => item.classifier_id);
    assert.deepEqual(answered, [this.classifierID, 'default']);
  }

  async classify_url() {
    const result = await this.client.classify({ url: this.options.imageURL, classifier_ids: [this.classifierID] });
    assert.deepEqual(this.classes(result), ['one']);
  }

  async classify_url_error() {
    const error = await this.refusal(() =>
      this.client.classify({ url: this.options.missingURL, classifier_ids: [this.classifierID] }),
    );
    assert.equal(error.code, 400, error.stack);
    assert.ok(`${error.message} ${error.body}`.includes('URL Fetcher error: '), error.stack);
  }

  async retrain() {
    const classes = { two: this.sample('two.zip'), one: this.sample('more-ones.zip') };
    const changed = await this.client.retrain(this.classifierID, classes);
    assert.equal(changed.status, 'retraining');
    assert.deepEqual(this.names((await this.waitUntilReady()).classes), ['one', 'two', 'zero']);
  }

  async core_ml() {
    assert.ok((await this.client.coreML(this.classifierID)).includes('zero'));
  }

  async delete() {
    await this.client.delete(this.classifierID);
    const error = await this.refusal(() => this.client.get(this.classifierID));
    assert.equal(error.code, 404, error.stack);
  }
}

async function main() {
  const options = JSON.parse(process.argv[2]);
  const life = new Life(options);
  for (const step of options.steps) {
    let message = null;
    try {
      await life[step]();
    } catch (error) {
      message = error.stack || String(error);
    }
    console.log(JSON.stringify({ step, error: message }));
  }
}

main();
