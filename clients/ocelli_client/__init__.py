"""Client of an Ocelli gateway, sync and async."""

from ocelli_client.api import LATEST, SERVED, ExportFormat, Removal
from ocelli_client.async_client import AsyncOcelli
from ocelli_client.cards import Accuracy, Card, Correction, Details, Progress, Revision
from ocelli_client.client import Ocelli
from ocelli_client.connection import Connection
from ocelli_client.creation import Creation, Transfer, TransferState
from ocelli_client.errors import (
    AnswerError,
    BusyError,
    ConflictError,
    LoginError,
    NotFoundError,
    NotReachableError,
    OcelliError,
    RefusedError,
    WaitTimeoutError,
)
from ocelli_client.events import Event
from ocelli_client.examples import Examples, ExampleSet
from ocelli_client.folders import read_class, read_folder
from ocelli_client.predictions import Classified, ImagePrediction, ScoredClass
from ocelli_client.waiting import Wait

__all__ = [
    "LATEST",
    "SERVED",
    "Accuracy",
    "AnswerError",
    "AsyncOcelli",
    "BusyError",
    "Card",
    "Classified",
    "ConflictError",
    "Connection",
    "Correction",
    "Creation",
    "Details",
    "Event",
    "ExampleSet",
    "Examples",
    "ExportFormat",
    "ImagePrediction",
    "LoginError",
    "NotFoundError",
    "NotReachableError",
    "Ocelli",
    "OcelliError",
    "Progress",
    "RefusedError",
    "Removal",
    "Revision",
    "ScoredClass",
    "Transfer",
    "TransferState",
    "Wait",
    "WaitTimeoutError",
    "read_class",
    "read_folder",
]
