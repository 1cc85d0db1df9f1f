"""`board`: what each gradient is worth, by task and stage, and for how many updates."""
