"""Predicted masks as annotation tools read them, to be corrected there: labelme, Label Studio and CVAT."""

from des4.data_tools.prelabels.cvat import CvatTask
from des4.data_tools.prelabels.label_studio import LabelStudioTasks
from des4.data_tools.prelabels.labelme import write_labelme
from des4.data_tools.prelabels.marks import Marked, Region, Shapes, mark

__all__ = ["CvatTask", "LabelStudioTasks", "Marked", "Region", "Shapes", "mark", "write_labelme"]
