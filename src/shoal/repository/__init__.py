"""Where models come from, and their life: folders, catalog, loading and unloading."""
