"""Where images and labels come from: folders, tables, shards, hubs, digits; one protocol for all."""
