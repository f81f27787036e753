"""Pure values: what a store is made of. Nothing here touches a file, a clock apart."""
