import { randomBytes } from 'node:crypto';
import { constants, mkdirSync } from 'node:fs';
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { BootbundleError, invalid } from './domain/errors.ts';
import { compileSchemas, type SchemaSet, type Schemas, type SchemaTexts } from './inspect/schema.ts';

/** Upstream's folder of schemas. */
export const UPSTREAM = 'https://raw.githubusercontent.com/canonical/cloud-init/main/cloudinit/config/schemas/';
/** cloud-init's own names for them. */
const NAMES = {
  cloudConfig: 'schema-cloud-config-v1.json',
  networkV1: 'schema-network-config-v1.json',
  networkV2: 'schema-network-config-v2.json',
} as const;
/** Below a data directory: one file, so that it is replaced whole. */
const KEPT = join('schemas', 'cloud-init.json');
/** Where an image or a package of ours brings a schema along, as if it were a data directory. */
const SHIPPED = '/usr/share/bootbundle';
/** Where distributions put Python's modules. */
const LIBRARIES = ['/usr/lib', '/usr/local/lib', '/usr/lib64'];
/** Upstream's largest has 160 KB. */
const MAX_BYTES = 8 * 1024 * 1024;
const FETCH_MS = 20_000;
const SETTING = 'BOOTBUNDLE_CLOUD_INIT_SCHEMA';

export interface SchemaFinderOptions {
  /** Where `schema update` puts its schema, or null: none. */
  dataDir: string | null;
  /** The file or folder that a setting names, which judges whatever else is found, or null. */
  file: string | null;
  /** Told of a schema that is there and cannot be used; the next best judges then, and in the place of the setting's none. */
  onTrouble?: OnTrouble;
  /** Where to look besides the data directory; for tests. */
  shipped?: string;
  libraries?: readonly string[];
}

type OnTrouble = (error: unknown, what: string) => void;

/** A schema that may judge. */
interface Candidate {
  /** For people, without a path of this machine. */
  source: string;
  texts: SchemaTexts;
}

/**
 * Makes a finder of the schema that judges now: the setting's, or else the newest of what `schema update` installed, what the image brought and
 * the cloud-inits on this machine. Nothing is read before it is asked; then again only when a file has changed.
 * The newest is the one that speaks of the highest version of cloud-init, as upstream notes at each deprecation.
 * @throws invalid `bad_schema` in one line that names the setting, when what it names cannot be used
 */
export async function createSchemaFinder(options: SchemaFinderOptions): Promise<() => Promise<Schemas>> {
  const { file, onTrouble = () => {} } = options;
  let known: { state: string; set: Promise<Schemas> } | undefined;
  const remember = async (watched: readonly string[], find: () => Promise<Schemas>) => {
    const state = JSON.stringify(await Promise.all(watched.map(stamp)));
    if (known?.state !== state) known = { state, set: find() };
    return known.set;
  };

  if (file !== null) {
    await naming(`${SETTING}: ${file}`, () => readSetting(file));
    const files = [file, ...Object.values(NAMES).map((name) => join(file, name))];
    return () => remember(files, () => useSetting(file, onTrouble));
  }
  return async () => {
    const places = await listPlaces(options);
    const files = places.flatMap(({ watched }) => watched);
    return remember(files, () => choose(places, onTrouble));
  };
}

/** @throws invalid `bad_schema`, without the file's name */
async function readSetting(file: string): Promise<SchemaSet> {
  return compileSchemas(`the one ${SETTING} names`, await readTexts(file, 'regular'));
}

/** Whoever named a file wants that one, so that no other takes its place. */
async function useSetting(file: string, onTrouble: OnTrouble): Promise<Schemas> {
  try {
    return await readSetting(file);
  } catch (error) {
    onTrouble(error, `the schema of ${SETTING} cannot be used`);
    const why = error instanceof BootbundleError ? error.message : 'cannot be read';
    return { source: null, unusable: `the schema that ${SETTING} names is unusable: ${why}` };
  }
}

/** Errors of what was read from a file say which. */
async function naming<T>(name: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof BootbundleError)) throw error;
    throw invalid('bad_schema', `${name}: ${error.message}`);
  }
}

/** Somewhere a schema may be: the files it hangs on, and how to read it (null: not there). */
interface SchemaPlace {
  name: string;
  watched: string[];
  read(): Promise<Candidate | null>;
}

async function choose(places: readonly SchemaPlace[], onTrouble: OnTrouble): Promise<SchemaSet | null> {
  const found: Candidate[] = [];
  for (const { name, read } of places) {
    try {
      const candidate = await read();
      if (candidate) found.push(candidate);
    } catch (error) {
      onTrouble(error, `the schema of ${name} cannot be read`);
    }
  }
  // Of equals the first: sorting keeps their order.
  for (const { source, texts } of found.toSorted((a, b) => versionOf(b.texts) - versionOf(a.texts))) {
    try {
      return compileSchemas(source, texts);
    } catch (error) {
      onTrouble(error, `the schema of ${source} cannot be used`);
    }
  }
  return null;
}

/** 25.3 → 25003; 0 before 23.4, when schemas began to tell. */
function versionOf({ cloudConfig }: SchemaTexts): number {
  const versions = cloudConfig.matchAll(/"(?:deprecated|changed|new)_version"\s*:\s*"([0-9]{1,3})\.([0-9]{1,3})/g);
  let newest = 0;
  for (const [, major, minor] of versions) newest = Math.max(newest, Number(major) * 1000 + Number(minor));
  return newest;
}

async function listPlaces({ dataDir, shipped = SHIPPED, libraries = LIBRARIES }: SchemaFinderOptions): Promise<SchemaPlace[]> {
  const kept = [...(dataDir === null ? [] : [dataDir]), shipped].map((folder) => keptPlace(join(folder, KEPT)));
  const modules = await Promise.all(libraries.map(listModules));
  return [...kept, ...modules.flat().map(installedPlace)];
}

async function listModules(library: string): Promise<string[]> {
  const names = (await readdir(library).catch(() => [])).filter((name) => /^python3(?:\.[0-9]+)?$/.test(name));
  return names
    .sort()
    .flatMap((name) => ['dist-packages', 'site-packages'].map((modules) => join(library, name, modules, 'cloudinit')));
}

function keptPlace(file: string): SchemaPlace {
  return {
    name: 'bootbundle schema update',
    watched: [file],
    read: async () => {
      const text = await readIfThere(file);
      return text === null ? null : parseKept(text);
    },
  };
}

function installedPlace(folder: string): SchemaPlace {
  const schemas = join(folder, 'config', 'schemas');
  return {
    name: 'an installed cloud-init',
    watched: [join(schemas, NAMES.cloudConfig), join(folder, 'version.py')],
    read: async () => {
      if ((await stamp(join(schemas, NAMES.cloudConfig))) === null) return null;
      const version = (await readIfThere(join(folder, 'version.py')).catch(() => null)) ?? '';
      const [, packaged] = /^_PACKAGED_VERSION = "([0-9][^"\n]{0,60})"/m.exec(version) ?? [];
      const [, plain] = /^__VERSION__ = "([0-9][^"\n]{0,60})"/m.exec(version) ?? [];
      return {
        source: `cloud-init ${packaged ?? plain ?? 'of unknown version'} (installed)`,
        texts: await readTexts(schemas, 'regular'),
      };
    },
  };
}

/** Whether a file is there, and whether it is still the same. */
async function stamp(file: string): Promise<string | null> {
  const stats = await stat(file, { bigint: true }).catch(() => null);
  return stats?.isFile() ? `${stats.mtimeNs} ${stats.size} ${stats.ino}` : null;
}

/** What a file may be: `regular`, or (where a person waits at a terminal) a pipe as well. */
type FileKind = 'regular' | 'any';

/** One schema of cloud-config, or a folder that holds it and perhaps those of network-config. @throws invalid `bad_schema` */
async function readTexts(path: string, kind: FileKind): Promise<SchemaTexts> {
  try {
    if (!(await stat(path)).isDirectory()) return { cloudConfig: await readText(path, kind), networkV1: null, networkV2: null };
    return {
      cloudConfig: await readText(join(path, NAMES.cloudConfig), kind),
      networkV1: await readIfThere(join(path, NAMES.networkV1), kind),
      networkV2: await readIfThere(join(path, NAMES.networkV2), kind),
    };
  } catch (error) {
    if (error instanceof BootbundleError) throw error;
    throw invalid('bad_schema', `cannot be read (${codeOf(error)})`);
  }
}

async function readIfThere(file: string, kind: FileKind = 'regular'): Promise<string | null> {
  try {
    return await readText(file, kind);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(codeOf(error))) return null;
    throw error;
  }
}

/** Bounded, and never waiting for a pipe or a device without being told to. @throws invalid `bad_schema`; what open() and read() throw */
async function readText(file: string, kind: FileKind): Promise<string> {
  // With O_NONBLOCK a pipe opens at once, so that it can be seen to be one.
  const handle = await open(file, constants.O_RDONLY | (kind === 'regular' ? constants.O_NONBLOCK : 0));
  try {
    if (kind === 'regular' && !(await handle.stat()).isFile()) throw invalid('bad_schema', 'not a regular file');
    const chunks: Buffer[] = [];
    for await (const chunk of handle.createReadStream({ end: MAX_BYTES, autoClose: false })) chunks.push(chunk);
    const bytes = Buffer.concat(chunks);
    if (bytes.length > MAX_BYTES) throw invalid('bad_schema', `larger than ${MAX_BYTES} bytes, so it is no schema`);
    return bytes.toString('utf8');
  } finally {
    await handle.close();
  }
}

/** @throws invalid `bad_schema` */
function parseKept(text: string): Candidate {
  try {
    const { source, texts } = JSON.parse(text);
    const isText = (value: unknown) => typeof value === 'string';
    if (
      isText(source) &&
      isText(texts.cloudConfig) &&
      [texts.networkV1, texts.networkV2].every((each) => each === null || isText(each))
    )
      return { source, texts };
  } catch {
    // Said below.
  }
  throw invalid('bad_schema', `${KEPT} is damaged: run bootbundle schema update`);
}

/** What `updateSchema` installed. */
export interface InstalledSchema {
  /** Where. */
  file: string;
  source: string;
  /** Whether the schemas of network-config came with it. */
  network: boolean;
}

/**
 * Puts a version of cloud-init's schemas into a data directory: all of them, looked through before they take the old ones' place, or nothing.
 * @param from an http(s) URL (of a file, or of a folder if it ends with a slash), a file or a folder
 * @param today for people: 2026-11-23
 * @throws invalid `bad_schema`, `schema_unreachable` in one line
 */
export async function updateSchema(dataDir: string, from: string, today: string): Promise<InstalledSchema> {
  const remote = /^https?:\/\//i.test(from);
  const texts = remote ? await fetchTexts(from) : await naming(from, () => readTexts(from, 'any'));
  const name = from === UPSTREAM ? 'upstream' : remote ? new URL(from).host : 'a file';
  const source = `${name}, ${remote ? 'fetched' : 'copied'} ${today}`;
  await naming(from, async () => compileSchemas(source, texts));
  const file = join(dataDir, KEPT);
  await replace(dataDir, file, JSON.stringify({ source, texts }));
  return { file, source, network: texts.networkV1 !== null || texts.networkV2 !== null };
}

/** Whole and on disk, or not at all. @throws invalid `schema_not_kept` */
async function replace(dataDir: string, file: string, text: string): Promise<void> {
  const draft = `${file}.${randomBytes(6).toString('hex')}`;
  try {
    // As the service would make it.
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    await mkdir(dirname(file), { recursive: true, mode: 0o755 });
    const handle = await open(draft, 'wx', 0o644);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(draft, file);
  } catch (error) {
    await rm(draft, { force: true }).catch(() => {});
    throw invalid('schema_not_kept', `${file}: cannot be written (${codeOf(error)})`);
  }
}

/** @throws invalid `schema_unreachable`, `bad_schema` */
async function fetchTexts(from: string): Promise<SchemaTexts> {
  if (!URL.canParse(from)) throw invalid('schema_unreachable', `${from}: not a URL`);
  if (!from.endsWith('/')) return { cloudConfig: await fetchText(from), networkV1: null, networkV2: null };
  const cloudConfig = await fetchText(from + NAMES.cloudConfig);
  // Older versions have none of these.
  const [networkV1, networkV2] = await Promise.all([
    fetchText(from + NAMES.networkV1, true),
    fetchText(from + NAMES.networkV2, true),
  ]);
  return { cloudConfig, networkV1, networkV2 };
}

async function fetchText(url: string): Promise<string>;
async function fetchText(url: string, optional: true): Promise<string | null>;
async function fetchText(url: string, optional = false): Promise<string | null> {
  try {
    const response = await fetch(url, {
      signal: AbortSignal.timeout(FETCH_MS),
      headers: { accept: 'application/json, text/plain' },
    });
    if (optional && response.status === 404) return null;
    if (!response.ok) throw invalid('schema_unreachable', `${url}: the server answers ${response.status}`);
    const chunks: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of response.body ?? []) {
      size += chunk.length;
      if (size > MAX_BYTES) throw invalid('bad_schema', `${url}: larger than ${MAX_BYTES} bytes, so it is no schema`);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString('utf8');
  } catch (error) {
    if (error instanceof BootbundleError) throw error;
    const code = error instanceof DOMException ? 'no answer in time' : codeOf((error as Error).cause ?? error);
    throw invalid('schema_unreachable', `${url}: cannot be fetched (${code}); --from takes a file, too`);
  }
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException | null)?.code ?? 'unknown error';
}
