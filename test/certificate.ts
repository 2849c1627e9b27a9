import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const FOLDER = mkdtempSync(join(tmpdir(), 'bootbundle-certificate-'));
process.once('exit', () => rmSync(FOLDER, { recursive: true, force: true }));

/** Two PEM files, gone when the process ends. */
export interface CertificateFiles {
  cert: string;
  key: string;
}

let made = 0;

/** A certificate for `localhost` and 127.0.0.1, good for a day; signed by `issuer`, or by itself. */
export function makeCertificate({ issuer, bits }: { issuer?: CertificateFiles; bits?: number } = {}): CertificateFiles {
  const files = { cert: join(FOLDER, `${++made}.pem`), key: join(FOLDER, `${made}.key`) };
  const kind = bits === undefined ? ['ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'] : [`rsa:${bits}`];
  openssl(
    ...['req', '-x509', '-newkey', ...kind, '-nodes', '-days', '1', '-keyout', files.key, '-out', files.cert],
    ...['-subj', issuer ? `/CN=localhost/OU=${made}` : `/CN=localhost`],
    ...['-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'],
    ...(issuer ? ['-CA', issuer.cert, '-CAkey', issuer.key] : []),
  );
  return files;
}

export function openssl(...args: string[]): void {
  execFileSync('openssl', args, { stdio: 'ignore' });
}
