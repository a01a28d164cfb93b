"""Finding a classifier by what people call it: its id, its name, or the name of its resource."""

from __future__ import annotations

from ocelli_client.api import list_classifiers
from ocelli_client.calls import Procedure
from ocelli_client.cards import Card
from ocelli_client.errors import NotFoundError, OcelliError


class AmbiguousNameError(OcelliError):
    """Several classifiers have the name."""


def resolve(name: str) -> Procedure[Card]:
    """The one classifier of this id or name.

    Raises:
        NotFoundError: there is none.
        AmbiguousNameError: several have the name, and it is the id of none.
    """
    cards = yield from list_classifiers()
    for names in (lambda card: (card.classifier_id,), _read_names):
        found = [card for card in cards if name in names(card)]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(card.classifier_id for card in found)
            raise AmbiguousNameError(f'{len(found)} classifiers have the name "{name}"; give one of the ids {ids}')
    raise NotFoundError(404, f'There is no classifier "{name}"')


def _read_names(card: Card) -> tuple[str, ...]:
    resource = card.resource or ""
    return (card.name, resource, resource.partition("/")[2])
