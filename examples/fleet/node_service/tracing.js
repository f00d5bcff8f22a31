"use strict";

// Loaded before the application: node --require ./tracing.js app.js
// Where spans go, the environment says, as for any SDK: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME.
const { FastifyOtelInstrumentation } = require("@fastify/otel");
const { ExpressInstrumentation } = require("@opentelemetry/instrumentation-express");
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");
const { NodeSDK } = require("@opentelemetry/sdk-node");

const sdk = new NodeSDK({
  instrumentations: [
    new HttpInstrumentation(),
    new ExpressInstrumentation(),
    new FastifyOtelInstrumentation({ registerOnInitialization: true }),
  ],
});
sdk.start();

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => sdk.shutdown().finally(() => process.exit(0)));
}
