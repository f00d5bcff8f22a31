"""GraphQL on FastAPI, with Strawberry's own tracing."""

from __future__ import annotations

import shop
import strawberry
from fastapi import FastAPI
from strawberry.extensions.tracing import OpenTelemetryExtension
from strawberry.fastapi import GraphQLRouter


@strawberry.type
class Query:
    @strawberry.field
    def item(self, item_id: str) -> str:
        return item_id


@strawberry.type
class Mutation:
    @strawberry.mutation
    def checkout(self, coupon: str) -> str:
        shop.charge()
        return coupon

    @strawberry.mutation
    def boom(self) -> str:
        raise RuntimeError("boom")


schema = strawberry.Schema(Query, Mutation, extensions=[OpenTelemetryExtension])
app = FastAPI()
app.include_router(GraphQLRouter(schema), prefix="/graphql")
