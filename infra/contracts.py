"""Puts the contracts in place before anything uses them: topics created, value schemas registered under their rules.

Run: `python -m infra.contracts`. Idempotent. A schema that would break a reader or a writer is refused here.
"""

from __future__ import annotations

import logging
import sys

from connectors.kafka import create_topics
from connectors.logs import configure_logging
from connectors.registry import SchemaRegistry
from schemas.codec import schema_text
from schemas.errors import ConnectorError, ContractError
from schemas.topics import TOPICS

log = logging.getLogger(__name__)


def register_subjects(registry: SchemaRegistry) -> dict[str, int]:
    """Registers every declared value schema; schema ids by subject.

    The rule is set first, so that even the second version ever is held to it.
    Errors: IncompatibleSchema, Unavailable.
    """
    ids = {}
    for topic in TOPICS:
        if topic.schema is not None:
            if registry.compatibility(topic.subject) != topic.compatibility:
                registry.set_compatibility(topic.subject, topic.compatibility)
            ids[topic.subject] = registry.register(topic.subject, schema_text(topic.schema))
    return ids


def main() -> int:
    configure_logging("contracts")
    try:
        created = create_topics(TOPICS)
        registry = SchemaRegistry()
        ids = register_subjects(registry)
        registry.close()
    except (ConnectorError, ContractError) as error:
        log.error(str(error))
        return 1
    log.info("contracts in place", extra={"topics_created": len(created), "subjects": len(ids)})
    return 0


if __name__ == "__main__":
    sys.exit(main())
