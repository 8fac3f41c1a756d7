"""Write off what will never be paid, or take such an entry back."""
