import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createSecureContext, type SecureContextOptions, type TlsOptions } from 'node:tls';
import { ConfigError } from './config.ts';

/** Where certificate (with its chain) and key are, both PEM. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
}

/** A server whose certificate can be replaced: tls.Server, and https.Server with it. */
interface Renewable {
  setSecureContext(options: SecureContextOptions): void;
}

/** The certificate that listeners serve with. */
export interface Certificate {
  /** What a listener begins with. */
  options: TlsOptions;
  /** What there is to say of it at a moment, each a line: it has expired, or is not valid yet. */
  warnings(now: number): string[];
  /** Nobody but itself vouches for it, so clients must be told to trust it. */
  selfSigned: boolean;
  /**
   * Looks every `everyMs` milliseconds whether the files have changed, and lets the servers go on with what is there now; connections stay.
   * What is no good is told once, and the servers keep what they have. @returns ends it
   */
  follow(servers: readonly Renewable[], tell: Tell, everyMs?: number): () => void;
}

/** Told of a renewal (null), or why there was none (one line). */
export type Tell = (trouble: string | null) => void;

const LOOK_EVERY_MS = 30_000;
/** A client that does not get on with its handshake is cut off. */
const HANDSHAKE_MS = 10_000;

/** Reads certificate and key. @throws ConfigError in one line that names the setting */
export async function openCertificate(files: TlsFiles): Promise<Certificate> {
  const first = await read(files);
  const leaf = check(first);
  return {
    options: { ...contextOf(first), handshakeTimeout: HANDSHAKE_MS },
    selfSigned: leaf.checkIssued(leaf),

    warnings(now) {
      const { validFromDate, validToDate } = leaf;
      if (now > validToDate.getTime()) return [`BOOTBUNDLE_TLS_CERT: expired at ${validToDate.toISOString()}`];
      if (now < validFromDate.getTime()) return [`BOOTBUNDLE_TLS_CERT: not valid before ${validFromDate.toISOString()}`];
      return [];
    },

    follow(servers, tell, everyMs = LOOK_EVERY_MS) {
      // What was found the last time: both files' text (a renewal may turn a link to files with older dates), or the trouble.
      let last = JSON.stringify(first);
      const look = async () => {
        const found = await read(files).catch((error: ConfigError) => error);
        const print = found instanceof ConfigError ? found.message : JSON.stringify(found);
        if (print === last) return;
        last = print;
        try {
          if (found instanceof ConfigError) throw found;
          check(found);
          for (const server of servers) server.setSecureContext(contextOf(found));
          tell(null);
        } catch (error) {
          tell((error as Error).message);
        }
      };
      let looked = Promise.resolve();
      const timer = setInterval(() => {
        looked = looked.then(look);
      }, everyMs).unref();
      return () => clearInterval(timer);
    },
  };
}

interface Pem {
  cert: string;
  key: string;
}

function contextOf({ cert, key }: Pem): SecureContextOptions {
  return { cert, key, minVersion: 'TLSv1.2' };
}

/** @returns the server's own certificate, the first of the file. @throws ConfigError in one line that names the setting */
function check({ cert, key }: Pem): X509Certificate {
  const blocks = cert.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
  const [leaf, ...chain] = blocks.map((block) => {
    try {
      return new X509Certificate(block);
    } catch {
      throw bad('TLS_CERT', 'not a certificate in PEM form');
    }
  });
  if (!leaf) throw bad('TLS_CERT', 'not a certificate in PEM form (-----BEGIN CERTIFICATE-----)');
  const privateKey = readKey(key);
  if (!leaf.checkPrivateKey(privateKey))
    throw chain.some((other) => other.checkPrivateKey(privateKey))
      ? bad('TLS_CERT', "the server's own certificate must be the first in the file, its issuers after it")
      : bad('TLS_KEY', 'this key does not belong to the certificate in BOOTBUNDLE_TLS_CERT');
  try {
    createSecureContext(contextOf({ cert, key }));
  } catch (error) {
    // Such as a key that is too short for what OpenSSL takes for secure.
    throw bad('TLS_CERT', `cannot be served: ${String((error as Error).message).split('\n')[0]}`);
  }
  return leaf;
}

function readKey(pem: string) {
  try {
    return createPrivateKey(pem);
  } catch {
    // RFC 7468 (ENCRYPTED PRIVATE KEY), and the older form (Proc-Type: 4,ENCRYPTED).
    throw /\bENCRYPTED\b/.test(pem)
      ? bad('TLS_KEY', 'the key has a passphrase: take it off with openssl pkey -in KEY -out FILE')
      : bad('TLS_KEY', 'not a private key in PEM form (-----BEGIN PRIVATE KEY-----)');
  }
}

async function read(files: TlsFiles): Promise<Pem> {
  const text = (name: string, path: string) =>
    readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
      throw bad(name, `the file cannot be read (${error.code ?? 'unknown'})`);
    });
  return { cert: await text('TLS_CERT', files.cert), key: await text('TLS_KEY', files.key) };
}

const bad = (name: string, why: string) => new ConfigError(`BOOTBUNDLE_${name}: ${why}`);
