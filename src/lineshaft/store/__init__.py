"""Where runs are kept: `port` says what a store can do, `sqlite` does it, `migrations` shape the tables."""
