"""``make proof-NAME``: what an issue promised, run and counted. One module a proof, over ``runner``."""
