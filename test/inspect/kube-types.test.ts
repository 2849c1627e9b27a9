import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkType, groupOf, loadKubeTypes, type Walk } from '../../src/inspect/kube-types.ts';

const types = await loadKubeTypes();

/** The remarks on a value held against a form. */
function look(form: string, value: unknown, plain: Walk['plain'] = () => null): string[] {
  const found: string[] = [];
  const report: Walk['report'] = ({ code, path, message }) => found.push(`${code} ${path.join('.')}: ${message}`);
  checkType({ types, report, full: () => false, plain, visit: () => {}, seen: new Map() }, form, value, ['x']);
  return found;
}

test('every kind has a type, and every type that is spoken of is there', () => {
  const known = new Set<string>();
  const meet = (type: string): void => {
    if (known.has(type)) return;
    known.add(type);
    const fields = types.fieldsOf(type);
    if (fields.size === 0) assert.match(type, /CustomResourceSubresourceStatus$/);
    for (const { form } of fields.values()) {
      const [inner] = /^[A-Z]\w+$/.exec(form.replace(/^[[{]+|[\]}]+$/g, '')) ?? [];
      if (inner !== undefined) meet(inner);
      else assert.match(form, /^[[{]*(?:[sbinpqB*]|=[^\s]+)[\]}]*$/, `${type}: ${form}`);
    }
  };
  for (const kind of types.kinds())
    for (const apiVersion of types.versionsOf(kind)) meet(types.typeOf(apiVersion, kind) ?? assert.fail(kind));
  assert.ok(known.size > 500, String(known.size));
});

test('the table knows what there is', () => {
  assert.equal(types.typeOf('apps/v1', 'Deployment'), 'AppsV1Deployment');
  assert.equal(types.typeOf('v1', 'Deployment'), null);
  assert.equal(types.typeOf('v1', 'List'), null);
  assert.ok(types.kindsOf('v1').includes('Pod') && types.groups().has('') && types.groups().has('apps'));
  assert.deepEqual(types.kindsOf('example.org/v1'), []);
  assert.deepEqual(types.versionsOf('CronJob'), ['batch/v1', 'batch/v1beta1']);
  assert.deepEqual([groupOf('v1'), groupOf('apps/v1')], ['', 'apps']);
});

const FITS: [form: string, values: unknown[]][] = [
  ['s', ['', 'a', '5', null, undefined, new Date(0), Buffer.from('a')]],
  ['i', [0, -5, 80.0, null]],
  ['n', [0.5, 1]],
  ['b', [true, false]],
  ['p', [80, 'http', '25%']],
  ['q', [1, 0.5, '1', '1.5', '.5', '500m', '128Mi', '1e3', '1E-3', '5E', '+1Gi', '100n', '1.']],
  ['B', ['', 'YQ==', 'YWI=', 'YWJj', 'YW\nJj\n']],
  ['=A|B', ['A', 'B', '']],
  ['[s]', [[], ['a'], [null], new Array(3)]],
  ['{s}', [{}, { 'a b': 'c', d: null }, new Set(['a'])]],
  ['*', [1, 'a', [], {}, null]],
  ['CoreV1EmptyDirVolumeSource', [{}, { medium: 'Memory', sizeLimit: '1Gi' }, { medium: null }]],
];

for (const [form, values] of FITS)
  test(`takes for ${form}`, () => {
    for (const value of values) assert.deepEqual(look(form, value), []);
  });

const DOES_NOT: [form: string, value: unknown, found: string[]][] = [
  ['s', 5, ['wrong_type x: x must be a string: put it in quotes']],
  ['s', true, ['wrong_type x: x must be a string: put it in quotes']],
  ['s', [], ['wrong_type x: x must be a string']],
  ['i', '5', ['wrong_type x: x must be an integer: take the quotes away']],
  ['i', 'five', ['wrong_type x: x must be an integer']],
  ['i', 0.5, ['wrong_type x: x must be an integer']],
  ['n', Number.NaN, ['wrong_type x: x must be a number']],
  ['b', 'yes', ['wrong_type x: x must be true or false: take the quotes away']],
  ['b', 1, ['wrong_type x: x must be true or false']],
  ['p', 80.5, ['wrong_type x: x must be an integer or a string']],
  ['q', '128MB', ['bad_quantity x: x is no quantity: write a number and n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi or Ei']],
  ['q', '', ['bad_quantity x: x is no quantity: write a number and n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi or Ei']],
  ['B', 'YQ', ['not_base64 x: x must be base64: encode it']],
  ['=Always|Never', 'always', ['unsupported_value x: x has a value that there is not: did you mean Always?']],
  ['=TCP|UDP', 'hunter2', ['unsupported_value x: x has a value that there is not: write TCP or UDP']],
  ['=TCP|UDP', 6, ['wrong_type x: x must be a string: put it in quotes']],
  ['[s]', 'a', ['wrong_type x: x must be a list']],
  ['[s]', { a: 'b' }, ['wrong_type x: x must be a list: begin each item with a -']],
  ['[s]', ['a', 1], ['wrong_type x.1: x[1] must be a string: put it in quotes']],
  ['{s}', ['a'], ['wrong_type x: x must be a mapping, KEY: VALUE']],
  ['{s}', { 'hunter2 secret': 1 }, ['wrong_type x.hunter2 secret: x.… must be a string: put it in quotes']],
  ['CoreV1KeyToPath', 5, ['wrong_type x: x must be a mapping of fields, FIELD: VALUE']],
  [
    'CoreV1KeyToPath',
    { key: 'a', mod: 0 },
    [
      'unknown_field x.mod: x.mod is no field there is: did you mean mode?',
      'missing_field x: x has no path, and cannot do without',
    ],
  ],
  // What was meant is not missed a second time.
  ['CoreV1KeyToPath', { key: 'a', pathh: 'b' }, ['unknown_field x.pathh: x.pathh is no field there is: did you mean path?']],
  ['CoreV1KeyToPath', { key: '', path: 'b' }, ['missing_field x.key: x.key is empty, and must not be']],
  // A spec that may be left out by its type, and would lack its containers.
  ['CoreV1PodTemplateSpec', {}, ['missing_field x: x has no spec, and cannot do without']],
  ['CoreV1PodSpec', { containers: [] }, ['missing_field x.containers: x.containers is empty, and must not be']],
];

for (const [form, value, found] of DOES_NOT)
  test(`does not take for ${form}: ${JSON.stringify(value)}`, () => {
    assert.deepEqual(look(form, value), found);
  });

test('what somebody wrote without quotes is read as kubectl reads it', () => {
  const wrote = (plain: string) => () => plain;
  assert.deepEqual(look('s', 685230, wrote('190:20:30')), []);
  assert.deepEqual(look('i', '0o644', wrote('0o644')), []);
  assert.deepEqual(look('b', 'y', wrote('y')), []);
  assert.deepEqual(look('s', 'y', wrote('y')), ['wrong_type x: x must be a string: put it in quotes']);
  assert.deepEqual(look('s', 'y'), []);
});

test('what aliases repeat is looked at once as each type', () => {
  let shared: unknown = { type: 5 };
  for (let depth = 0; depth < 40; depth++) shared = { not: shared, properties: shared, allOf: [shared, shared] };
  const found = look('ApiextensionsV1JSONSchemaProps', shared);
  assert.ok(found.length > 0 && found.length < 200, String(found.length));
});
