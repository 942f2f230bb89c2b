"""What the competition adds to networks and queries: instances, results, witnesses and their judgement."""
