"use strict";

// One process with two applications, an Express and a Fastify one, each on a port of its own.
const { trace } = require("@opentelemetry/api");
const express = require("express");
const fastify = require("fastify");

const tracer = trace.getTracer("shop");

// Authentication, in a span of its own as a middleware's often is.
function authenticate(headers) {
  tracer.startActiveSpan("authenticate", (span) => {
    const user = headers["x-user"];
    if (user) span.setAttribute("user.id", user);
    span.end();
  });
}

// The business event, on a child of the request's span.
function pay(orderId) {
  tracer.startActiveSpan("charge", (span) => {
    span.addEvent("payment_processed", { order_id: orderId, amount: 19.9, currency: "EUR" });
    span.end();
  });
}

function expressShop() {
  const app = express();
  app.use((request, _response, next) => {
    authenticate(request.headers);
    next();
  });
  app.get("/health", (_request, response) => response.send("ok"));
  app.get("/products/:productId", (request, response) => response.json({ id: request.params.productId }));
  app.post("/orders/:orderId", (request, response) => {
    pay(request.params.orderId);
    response.status(201).json({ id: request.params.orderId });
  });
  const admin = express.Router(); // mounted below a path: the route is both together
  admin.get("/users/:userId", (request, response) => response.json({ id: request.params.userId }));
  app.use("/admin", admin);
  app.get("/broken", () => {
    throw new Error("broken");
  });
  app.use((_error, _request, response, _next) => response.status(500).send("failed"));
  return new Promise((resolve) => {
    const server = app.listen(Number(process.env.EXPRESS_PORT || 0), "127.0.0.1", () => resolve(server));
  });
}

async function admin(scope) {
  scope.get("/reports/:reportId", async (request) => ({ id: request.params.reportId }));
}

async function fastifyShop() {
  const app = fastify();
  app.addHook("onRequest", async (request) => authenticate(request.headers));
  app.get("/health", async () => "ok");
  app.get("/articles/:articleId", async (request) => ({ id: request.params.articleId }));
  app.post("/carts/:cartId/checkout", async (request, reply) => {
    pay(request.params.cartId);
    reply.code(201);
    return { id: request.params.cartId };
  });
  app.register(admin, { prefix: "/admin" });
  app.get("/broken", async () => {
    throw new Error("broken");
  });
  await app.listen({ port: Number(process.env.FASTIFY_PORT || 0), host: "127.0.0.1" });
  return app.server;
}

async function main() {
  const servers = [await expressShop(), await fastifyShop()];
  console.log(`listening: ${servers.map((server) => server.address().port).join(" ")}`);
}

main();
