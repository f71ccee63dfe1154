"""The only package that changes a queue's tree."""

from fsqdo.store.appender import Appender
from fsqdo.store.store import Entry, Store, bundles_among, create
from fsqdo.store.system import fs
from fsqdo.store.tree import Tree

__all__ = ["Appender", "Entry", "Store", "Tree", "bundles_among", "create", "fs"]
