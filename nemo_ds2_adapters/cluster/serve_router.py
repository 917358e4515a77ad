"""Which replica gets which request: everybody has one of their own, as long as the replicas are the same."""

from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from ray.serve.request_router import PendingRequest, RunningReplica

PIN = "@"  # a key that begins with it is a replica's id; others are hashed


class UserRouter(ConsistentHashRouter):
    """Ray Serve's router by consistent hashing of a request's key, of which some name the replica itself.

    A request for a replica that has gone is sent to another one, which says that it is not meant.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """The replicas to be tried, the best first."""
        key = "" if pending_request is None else pending_request.metadata.session_id
        if key.startswith(PIN):
            named = [one for one in candidate_replicas if PIN + one.replica_id.unique_id == key]
            if named and pending_request is not None:
                pending_request.routing_context.should_backoff = True
                return [named]
        return await super().choose_replicas(candidate_replicas, pending_request)
