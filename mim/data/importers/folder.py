"""Classes as sub-folders: DIR/CLASS/IMAGE, or DIR/SPLIT/CLASS/IMAGE."""

from mim.data.importers.files import SPLIT_FOLDERS, Films
from mim.data.importers.types import Imported, ImportedImage, Place, Problem, plain


def read_folder(films: Films) -> Imported:
    """Take the class of each image from its sub-folder.

    If every sub-folder at the top is called train, val, valid, validation or test, it is the split and the classes are
    one level down. Folders further in belong to their class.
    """
    folders = {name.split("/")[0] for name in films.names if "/" in name}
    has_splits = bool(folders) and folders <= SPLIT_FOLDERS.keys()
    images: list[ImportedImage] = []
    problems: list[Problem] = []
    for name in films.names:
        parts = name.split("/")
        place = Place(name)
        if len(parts) < 2 + has_splits:
            problems.append(Problem("file-without-label", place, name, "it lies in the folder of no class"))
            continue
        split = SPLIT_FOLDERS[parts[0]] if has_splits else ""
        images.append(ImportedImage(name, place, {"class": plain(parts[has_splits])}, split=split))
    classes = tuple(sorted({image.labels["class"] for image in images}))
    return Imported(images, problems, classes, ("class",), has_boxes=False)
