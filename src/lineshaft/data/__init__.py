"""What runs produce and where heavy ones compute: artifacts, partitions, lineage, tables, compute."""
