"""How processes run: how long they live, what they may take, and work that has a process of its own."""
