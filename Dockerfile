FROM node:24-slim AS build
WORKDIR /app
COPY package.json package-lock.json tsconfig.json tsconfig.build.json ./
RUN npm ci
COPY src ./src
COPY migrations ./migrations
RUN npm run build && npm prune --omit=dev

FROM node:24-slim
ENV NODE_ENV=production BOOTBUNDLE_HOST=0.0.0.0 BOOTBUNDLE_DATA_DIR=/data
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/dist ./dist
# cloud-init's schema as of this build; `schema update` puts a newer one into /data.
RUN node dist/src/cli/bootbundle.js schema update --data-dir /usr/share/bootbundle && chmod 755 /usr/share/bootbundle
RUN install -d -o node -g node -m 700 /data
USER node
VOLUME /data
EXPOSE 8080
# By itself, so whatever its certificate says.
HEALTHCHECK --interval=10s --timeout=5s CMD ["node", "-e", "const { BOOTBUNDLE_TLS_CERT: tls, BOOTBUNDLE_PORT: port } = process.env; require(tls ? 'https' : 'http').get({ host: '127.0.0.1', port: port || 8080, path: '/readyz', rejectUnauthorized: false }, (r) => process.exit(r.statusCode === 200 ? 0 : 1)).on('error', () => process.exit(1))"]
# BOOTBUNDLE_PUBLIC_URL must be set: a container cannot know which URL machines reach.
CMD ["node", "dist/src/cli/bootbundle.js", "serve"]
