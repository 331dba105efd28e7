"""Drawn bitewing radiographs with caries: the data that the demo and the tests run on, not a claim about patients."""

from mim.data.phantom.draw import PhantomFilm, draw_film
from mim.data.phantom.files import PhantomSummary, write_phantom
from mim.data.phantom.lesions import GRADES, Lesion
from mim.data.phantom.settings import PhantomSettings

__all__ = ["GRADES", "Lesion", "PhantomFilm", "PhantomSettings", "PhantomSummary", "draw_film", "write_phantom"]
