import swagger from '@fastify/swagger';
import type { FastifyInstance } from 'fastify';
import product from '../../package.json' with { type: 'json' };

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The request body for the OpenAPI document, where it arrives as bytes and has no schema of its own. */
    requestBody?: { required: boolean; content: Record<string, { schema: unknown }> };
  }
}

/** Collects the routes for /openapi.json; must be registered before them. */
export async function documentApi(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'bootbundle',
        version: product.version,
        description:
          'Boot bundles for cloud-init: named sets of parts, rendered for each machine at the moment it asks. Errors are RFC 9457 problem details; lists are `{items, next}`.',
        license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      },
      servers: [{ url: '/', description: 'This server' }],
      tags: [
        { name: 'bundles', description: 'Named sets of parts, their revisions and tags' },
        { name: 'instances', description: 'Registered machines' },
        { name: 'lint', description: 'Inspecting without keeping' },
        { name: 'ledger', description: 'What machines fetched, and what became of them' },
        { name: 'machines', description: 'What machines call; the URL is all they need' },
        { name: 'tokens', description: 'API tokens: who may call, what, and until when' },
        { name: 'audit', description: 'Who changed, revealed or forced what' },
        { name: 'ops', description: 'For monitoring' },
      ],
      components: {
        securitySchemes: {
          bearer: { type: 'http', scheme: 'bearer', description: 'An API token' },
          basic: { type: 'http', scheme: 'basic', description: 'The token as password, any user name' },
        },
      },
      security: [{ bearer: [] }, { basic: [] }],
    },
    refResolver: {
      buildLocalReference: (json, _base, _fragment, index) => (typeof json.$id === 'string' ? json.$id : `def-${index}`),
    },
    transform: ({ schema, url, route }) => {
      const requestBody = route.config?.requestBody;
      // A raw body has no schema to validate, but the document must say what may be sent.
      const { querystring, ...said } = schema ?? {};
      const role = route.config?.role;
      const description = [said.description, role && `Needs the role ${role}.`].filter((text) => text).join(' ');
      const rest = description === '' ? said : { ...said, description };
      const query = hasProperties(querystring) ? { querystring } : {};
      return {
        schema: requestBody ? { ...rest, ...query, body: { content: requestBody.content } } : { ...rest, ...query },
        url,
      };
    },
  });
}

function hasProperties(schema: unknown): boolean {
  return Object.keys((schema as { properties?: object } | undefined)?.properties ?? {}).length > 0;
}
