// Drives the unmodified @google-cloud/storage against a running server:
// node probe.js, with the variables of `tategu env` or `tategu env --intercept`.
// Prints a line a check and "N passed, N failed".
'use strict';

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const {Storage, TransferManager} = require('@google-cloud/storage');

const client = new Storage({projectId: 'project-1'});
const intercepted = !process.env.STORAGE_EMULATOR_HOST;
const bucket = client.bucket(`node-${Date.now()}-${process.pid}`);
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'tategu-node-'));

const status = code => err => { assert.equal(Number(err.code), code, err.message); return true; };

async function read(file, options) {
  return (await file.download(options))[0].toString();
}

const checks = {
  async bucket() {
    await client.createBucket(bucket.name, {location: 'US', labels: {a: 'b'}});
    await bucket.addLifecycleRule({action: {type: 'Delete'}, condition: {age: 3}});
    const [m] = await bucket.getMetadata();
    assert.equal(m.labels.a, 'b');
    assert.equal(m.lifecycle.rule[0].condition.age, 3);
    await assert.rejects(client.createBucket(bucket.name), status(409));
  },
  async 'objects and ranges'() {
    const file = bucket.file('a/日本 b?#%2F.txt');
    await file.save('0123456789', {resumable: false, contentType: 'text/plain', metadata: {metadata: {k: 'v'}}});
    assert.equal(await read(file), '0123456789');
    assert.equal(await read(file, {start: 2, end: 4}), '234');
    const [m] = await file.setMetadata({metadata: {k: 'w'}});
    assert.deepEqual([m.metadata.k, m.metageneration, m.contentType], ['w', '2', 'text/plain']);
    await file.delete();
    assert.deepEqual(await file.exists(), [false]);
  },
  async resumable() {
    const data = crypto.randomBytes((3 << 20) + 17);
    const file = bucket.file('big');
    await file.save(data, {resumable: true, chunkSize: 256 << 10, validation: 'crc32c'});
    assert.ok((await file.download({validation: 'crc32c'}))[0].equals(data));
  },
  async 'gzip in and out'() {
    const file = bucket.file('z');
    await file.save('hello'.repeat(100), {gzip: true, resumable: false, contentType: 'text/plain'});
    assert.equal((await file.getMetadata())[0].contentEncoding, 'gzip');
    assert.equal(await read(file), 'hello'.repeat(100));
  },
  async preconditions() {
    const once = bucket.file('once', {preconditionOpts: {ifGenerationMatch: 0}});
    await once.save('1', {resumable: false, preconditionOpts: {ifGenerationMatch: 0}});
    await assert.rejects(bucket.file('once').save('2', {resumable: false, preconditionOpts: {ifGenerationMatch: 0}}), status(412));
    assert.equal(await read(bucket.file('once')), '1');
  },
  async lists() {
    for (const name of ['l/1', 'l/2', 'l/d/3', 'l/d/4.csv']) await bucket.file(name).save('', {resumable: false});
    const names = async q => (await bucket.getFiles(q))[0].map(f => f.name);
    assert.deepEqual(await names({prefix: 'l/', delimiter: '/'}), ['l/1', 'l/2']);
    assert.deepEqual(await names({prefix: 'l/'}), ['l/1', 'l/2', 'l/d/3', 'l/d/4.csv']);
    assert.deepEqual(await names({matchGlob: 'l/**.csv'}), ['l/d/4.csv']);
  },
  async 'copy, combine and move'() {
    await bucket.file('c/a').save('A', {resumable: false});
    await bucket.file('c/b').save('B', {resumable: false});
    await bucket.combine(['c/a', 'c/b'], 'c/ab');
    const [copy] = await bucket.file('c/ab').copy(bucket.file('c/copy'));
    const [moved] = await copy.moveFileAtomic('c/moved');
    assert.equal(await read(moved), 'AB');
  },
  async versions() {
    await bucket.setMetadata({versioning: {enabled: true}});
    await bucket.file('v').save('1', {resumable: false});
    await bucket.file('v').save('2', {resumable: false});
    const [all] = await bucket.getFiles({prefix: 'v', versions: true});
    assert.deepEqual(await Promise.all(all.map(f => read(bucket.file('v', {generation: f.metadata.generation})))), ['1', '2']);
    await bucket.setMetadata({versioning: {enabled: false}});
  },
  async holds() {
    const file = bucket.file('h');
    await file.save('1', {resumable: false});
    await file.setMetadata({temporaryHold: true});
    await assert.rejects(file.delete(), status(403));
    await file.setMetadata({temporaryHold: false});
    await file.delete();
  },
  async policy() {
    const [policy] = await bucket.iam.getPolicy({requestedPolicyVersion: 3});
    policy.bindings = (policy.bindings || []).concat({role: 'roles/storage.objectViewer', members: ['user:a@example.com']});
    await bucket.iam.setPolicy(policy);
    assert.deepEqual((await bucket.iam.testPermissions('storage.objects.get'))[0], {'storage.objects.get': true});
  },
  async 'XML multipart by the transfer manager'() {
    if (!intercepted) return 'skip'; // the client builds https://BUCKET.HOST without the port
    const data = crypto.randomBytes(12 << 20);
    const file = path.join(folder, 'parts');
    fs.writeFileSync(file, data);
    const manager = new TransferManager(bucket);
    await manager.uploadFileInChunks(file, {uploadName: 'parts', chunkSizeBytes: 5 << 20, concurrencyLimit: 2});
    const [back] = await manager.downloadFileInChunks('parts', {chunkSizeBytes: 5 << 20, noReturnData: false, destination: path.join(folder, 'back'), validation: 'crc32c'});
    assert.ok(Buffer.isBuffer(back) ? back.equals(data) : fs.readFileSync(path.join(folder, 'back')).equals(data));
  },
  async 'notifications and missing things'() {
    await assert.rejects(bucket.file('none').download(), status(404));
    await assert.rejects(client.bucket('no-such-bucket-here').getMetadata(), status(404));
    const topic = '//pubsub.googleapis.com/projects/project-1/topics/t1';
    await new Promise((resolve, reject) => bucket.request(
      {method: 'POST', uri: '/notificationConfigs', json: {topic, payload_format: 'NONE'}},
      (err, body) => (err ? reject(err) : resolve(body)),
    ));
    assert.equal((await bucket.getNotifications())[0].length, 1);
  },
};

(async () => {
  const mode = intercepted ? 'intercept' : 'emulator host';
  let passed = 0, failed = 0;
  for (const [name, run] of Object.entries(checks)) {
    try {
      if ((await run()) === 'skip') continue;
      passed++;
      console.log(`ok    node, ${mode}: ${name}`);
    } catch (err) {
      failed++;
      console.log(`FAIL  node, ${mode}: ${name}: ${err.stack || err}`);
    }
  }
  fs.rmSync(folder, {recursive: true, force: true});
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed ? 1 : 0);
})();
