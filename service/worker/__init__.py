"""The worker: takes jobs, has them computed in killable children, stores what came of them."""
