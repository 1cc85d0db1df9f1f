"""Is what gradlab says of world models with latents right, where it is followed?"""
