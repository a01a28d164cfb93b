// The life of a classifier through the Node SDK of IBM's service: the same steps as watson_steps.py, see there.

import assert from 'node:assert/strict';
import { createReadStream, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import auth from 'ibm-watson/auth/index.js';
import VisualRecognitionV3 from 'ibm-watson/visual-recognition/v3.js';

const VERSION = '2018-03-19';
const DEADLINE_MILLISECONDS = 90_000;

async function connect(options) {
  const { way, apiKey, address, prefix } = options;
  const common = { version: VERSION, serviceUrl: address + prefix };
  switch (way) {
    case 'environment':
      // The caller sets VISUAL_RECOGNITION_AUTH_TYPE and the other variables.
      return new VisualRecognitionV3({ version: VERSION });
    case 'basic':
      return new VisualRecognitionV3({
        ...common,
        authenticator: new auth.BasicAuthenticator({ username: options.user, password: options.password }),
      });
    case 'basic apikey':
      return new VisualRecognitionV3({
        ...common,
        authenticator: new auth.BasicAuthenticator({ username: 'apikey', password: apiKey }),
      });
    case 'iam':
      return new VisualRecognitionV3({
        ...common,
        authenticator: new auth.IamAuthenticator({ apikey: apiKey, url: address }),
      });
    case 'bearer': {
      const body = new URLSearchParams({
        grant_type: 'urn:ibm:params:oauth:grant-type:apikey',
        apikey: apiKey,
        response_type: 'cloud_iam',
      });
      const answer = await fetch(`${address}/identity/token`, { method: 'POST', body });
      const { access_token: bearerToken } = await answer.json();
      return new VisualRecognitionV3({
        ...common,
        authenticator: new auth.BearerTokenAuthenticator({ bearerToken }),
      });
    }
    default:
      return new VisualRecognitionV3({
        ...common,
        qs: { api_key: apiKey },
        authenticator: new auth.NoAuthAuthenticator(),
      });
  }
}

class Life {
  constructor(options, service) {
    this.options = options;
    this.service = service;
    this.name = `sdk ${options.way}`;
    this.servedId = options.servedID;
  }

  path(name) {
    return `${this.options.samples}/${name}`;
  }

  async waitUntil(status) {
    const deadline = Date.now() + DEADLINE_MILLISECONDS;
    for (;;) {
      const { result } = await this.service.getClassifier({ classifierId: this.servedId });
      if (result.status === status) return result;
      assert.ok(['training', 'retraining'].includes(result.status), JSON.stringify(result));
      assert.ok(Date.now() < deadline, JSON.stringify(result));
      await sleep(300);
    }
  }

  classes(result, image = 0, classifier = 0) {
    return result.images[image].classifiers[classifier].classes.map((item) => item.class);
  }

  async refusal(call) {
    try {
      await call();
    } catch (error) {
      return error;
    }
    throw new Error('it was not refused');
  }

  async create() {
    const { result } = await this.service.createClassifier({
      name: this.name,
      positiveExamples: { zero: createReadStream(this.path('zero.zip')), one: readFileSync(this.path('one.zip')) },
      negativeExamples: createReadStream(this.path('other-digits.zip')),
    });
    assert.equal(result.name, this.name);
    assert.equal(result.status, 'training');
    assert.deepEqual(result.classes.map((item) => item.class).sort(), ['one', 'zero']);
    this.classifierId = result.classifier_id;
    this.servedId ??= this.classifierId;
  }

  async poll() {
    const ready = await this.waitUntil('ready');
    assert.equal(ready.created, ready.updated);
    assert.equal(ready.core_ml_enabled, true);
  }

  async list() {
    const { result } = await this.service.listClassifiers();
    const own = result.classifiers.filter((item) => item.classifier_id === this.servedId);
    assert.deepEqual(own.map((item) => [Object.keys(item).length, item.status]), [[3, 'ready']]);
  }

  async list_verbose() {
    const { result } = await this.service.listClassifiers({ verbose: true });
    const [own] = result.classifiers.filter((item) => item.classifier_id === this.servedId);
    assert.equal(own.classes.length, 2);
  }

  async classify_file() {
    const { result } = await this.service.classify({
      imagesFile: createReadStream(this.path('test-one.png')),
      classifierIds: [this.servedId],
    });
    assert.deepEqual(this.classes(result), ['one']);
  }

  async classify_threshold() {
    const { result } = await this.service.classify({
      imagesFile: readFileSync(this.path('test-one.png')),
      imagesFilename: 'a.png',
      threshold: 0,
      classifierIds: [this.servedId],
    });
    assert.deepEqual(this.classes(result).sort(), ['one', 'zero']);
  }

  async classify_zip() {
    const { result } = await this.service.classify({
      imagesFile: createReadStream(this.path('tests.zip')),
      classifierIds: [this.servedId, 'default'],
    });
    assert.ok(result.images_processed > 1);
    assert.deepEqual(
      result.images[0].classifiers.map((item) => item.classifier_id),
      [this.servedId, 'default'],
    );
  }

  async classify_url() {
    const { result } = await this.service.classify({ url: this.options.imageURL, classifierIds: [this.servedId] });
    assert.deepEqual(this.classes(result), ['one']);
    assert.equal(result.images[0].source_url, this.options.imageURL);
  }

  async classify_owners() {
    const { result } = await this.service.classify({
      url: this.options.imageURL,
      owners: ['me', 'IBM'],
      acceptLanguage: 'de',
    });
    const answered = result.images[0].classifiers.map((item) => item.classifier_id);
    assert.ok(answered.includes(this.servedId) && answered.includes('default'), JSON.stringify(answered));
  }

  async classify_nothing() {
    const error = await this.refusal(() => this.service.classify({ classifierIds: [this.classifierId] }));
    assert.equal(error.status, 400);
    assert.equal(error.message, 'No images were specified.');
  }

  async retrain() {
    let changed;
    try {
      changed = await this.service.updateClassifier({
        classifierId: this.classifierId,
        positiveExamples: { two: createReadStream(this.path('two.zip')), one: createReadStream(this.path('more-ones.zip')) },
      });
    } catch (error) {
      // Without waiting for a training, the classifier is still in its first one.
      assert.notEqual(this.servedId, this.classifierId, error.message);
      assert.equal(error.status, 400);
      assert.match(error.message, /training/);
      return;
    }
    const { result } = changed;
    assert.equal(result.status, 'retraining');
    assert.deepEqual(result.classes.map((item) => item.class).sort(), ['one', 'two', 'zero']);
    if (this.servedId === this.classifierId) {
      const ready = await this.waitUntil('ready');
      assert.equal(ready.retrained, ready.updated);
      assert.ok(ready.updated > ready.created);
    }
  }

  async core_ml() {
    const response = await this.service.getCoreMlModel({ classifierId: this.servedId });
    assert.equal(response.headers['content-type'], 'application/octet-stream');
    const chunks = [];
    for await (const chunk of response.result) chunks.push(chunk);
    assert.ok(Buffer.concat(chunks).includes('zero'));
  }

  async user_data() {
    const customerId = `customer of node ${this.options.way}`;
    const { result } = await this.service.createClassifier({
      name: 'of a customer',
      positiveExamples: { zero: createReadStream(this.path('zero.zip')), one: createReadStream(this.path('one.zip')) },
      headers: { 'X-Watson-Metadata': `customer_id=${customerId}` },
    });
    const { status } = await this.service.deleteUserData({ customerId });
    assert.equal(status, 202);
    const deadline = Date.now() + 60_000;
    for (;;) {
      try {
        await this.service.getClassifier({ classifierId: result.classifier_id });
      } catch (error) {
        assert.equal(error.status, 404);
        return;
      }
      assert.ok(Date.now() < deadline);
      await sleep(300);
    }
  }

  async delete() {
    const { result } = await this.service.deleteClassifier({ classifierId: this.classifierId });
    assert.deepEqual(result, {});
    const error = await this.refusal(() => this.service.getClassifier({ classifierId: this.classifierId }));
    assert.equal(error.status, 404);
  }
}

const STEPS = [
  'create',
  'poll',
  'list',
  'list_verbose',
  'classify_file',
  'classify_threshold',
  'classify_zip',
  'classify_url',
  'classify_owners',
  'classify_nothing',
  'retrain',
  'core_ml',
  'user_data',
  'delete',
];

const options = JSON.parse(process.argv[2]);
const life = new Life(options, await connect(options));
for (const step of STEPS) {
  let message = null;
  try {
    await life[step]();
  } catch (error) {
    message = error.stack ?? String(error);
  }
  console.log(JSON.stringify({ step, error: message }));
}
