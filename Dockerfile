FROM node:22-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json ./
COPY scripts/prepare.js scripts/
COPY prisma prisma
COPY prisma.config.ts tsconfig.json tsconfig.build.json ./
COPY src src
COPY workflows workflows
COPY activities activities
COPY bin bin
# Builds too, by the package's `prepare` script.
RUN npm ci && npm prune --omit=dev --ignore-scripts

FROM node:22-bookworm-slim
ENV NODE_ENV=production FASTJOIN_DATA_DIR=/data
WORKDIR /app
COPY --from=build /app/package.json ./
COPY --from=build /app/node_modules node_modules
COPY --from=build /app/build build
COPY --from=build /app/prisma prisma
COPY bin bin
RUN ln -s /app/bin/fastjoin.js /usr/local/bin/fastjoin && install -d -o node -g node -m 700 /data
USER node
VOLUME /data
EXPOSE 8008 8448
ENTRYPOINT ["fastjoin"]
