"""When a model should be trained again: told once, decided by a person, done by nobody here."""
