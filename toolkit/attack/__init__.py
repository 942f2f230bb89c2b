"""Looking for witnesses: points, secants, populations and gradients; none of it can prove anything."""
