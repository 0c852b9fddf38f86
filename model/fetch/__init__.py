"""Released weights by name: where they lie, how they are fetched, and the folder that they become."""
