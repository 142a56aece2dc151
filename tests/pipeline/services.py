"""The MongoDB and Redis of a run: its own database and its own prefix, removed behind it."""
import os, uuid

import pymongo
import redis


def own_part():
    """The settings that give a server a part of the services to itself; None if there are no services."""
    if not os.environ.get("MONGO_URL") or not os.environ.get("REDIS_URL"):
        return None
    own = f"pipeline_{uuid.uuid4().hex[:12]}"
    return {"MONGO_URL": os.environ["MONGO_URL"], "REDIS_URL": os.environ["REDIS_URL"], "MONGO_DB": own,
            "REDIS_PREFIX": f"{own}:"}


def remove(settings):
    """Removes what a server with these settings has left."""
    with pymongo.MongoClient(settings["MONGO_URL"], timeoutMS=120_000) as client:
        client.drop_database(settings["MONGO_DB"])
    with redis.Redis.from_url(settings["REDIS_URL"], socket_timeout=60) as client:
        for key in client.scan_iter(f"{settings['REDIS_PREFIX']}*", count=1000):
            client.unlink(key)
