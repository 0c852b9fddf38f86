"""Lists of classes that tests store, and what is there of them."""

from service.schemas.classes import ClassEntry
from service.vocabularies.catalog import Vocabularies

ENTRIES = (
    ClassEntry(name="sky", color="#87ceeb"),
    ClassEntry(name="tree", synonyms=["bush", "shrub"], trained=True),
    ClassEntry(name="Straße"),
)
ONE = (ClassEntry(name="one"),)


async def own_sizes(vocabularies: Vocabularies) -> dict[str, int]:
    """Number of classes by name, of all lists but the built-in ones."""
    return {item.name: item.size for item in await vocabularies.summaries() if not item.builtin}
